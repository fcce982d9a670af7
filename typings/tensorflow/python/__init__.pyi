from typing import Any

pywrap_tfe: Any
