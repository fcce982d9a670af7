"""The report of a run: tables, figures and the page that holds them."""
