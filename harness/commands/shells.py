"""The scripts by which shells ask `capsbench completion` what could be typed next: short, since the answer is not theirs."""

BASH = """\
# Completion of capsbench in bash. In ~/.bashrc: eval "$(capsbench completion bash)"
_capsbench() {
    local kind word
    COMPREPLY=()
    {
        IFS= read -r kind
        while IFS= read -r word; do COMPREPLY+=("$word"); done
    } < <(
        export _CAPSBENCH_LINE="${COMP_LINE:0:COMP_POINT}" _CAPSBENCH_WORD="$2"
        "${1/#\\~/$HOME}" completion bash --answer 2>/dev/null
    )
    if type compopt >/dev/null 2>&1; then
        [[ $kind == paths ]] && compopt -o filenames 2>/dev/null
        [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/.=] ]] && compopt -o nospace 2>/dev/null
    fi
    return 0
}
complete -F _capsbench capsbench
"""

ZSH = """\
#compdef capsbench
# Completion of capsbench in zsh. In ~/.zshrc, after compinit: eval "$(capsbench completion zsh)"
_capsbench() {
    local line word
    local -a before open open_about whole whole_about
    before=("${(@Q)words[1,CURRENT-1]}")
    while IFS= read -r line; do
        word=${line%%$'\\t'*}
        if [[ $word == '~'* ]]; then word="~${(q)${word#\\~}}"; else word=${(q)word}; fi
        if [[ $word == *[/.=] ]]; then
            open+=("$word") open_about+=("${line/$'\\t'/  }")
        else
            whole+=("$word") whole_about+=("${line/$'\\t'/  }")
        fi
    done < <(
        export _CAPSBENCH_WORDS="${(F)before}" _CAPSBENCH_WORD="${(Q)PREFIX}"
        "${~before[1]}" completion zsh --answer 2>/dev/null
    )
    (( $#whole )) && compadd -Q -l -d whole_about -- "${whole[@]}"
    (( $#open )) && compadd -Q -l -S '' -d open_about -- "${open[@]}"
    (( $#whole + $#open ))
}
if [[ ${funcstack[1]-} == _capsbench ]]; then
    _capsbench "$@"
else
    compdef _capsbench capsbench
fi
"""

FISH = """\
# Completion of capsbench in fish: capsbench completion fish > ~/.config/fish/completions/capsbench.fish
function __capsbench_answer
    set -l words (commandline -opc)
    set -l word (string unescape -- (commandline -ct); or commandline -ct)
    set -lx _CAPSBENCH_WORDS (string join \\n -- $words | string collect)
    set -lx _CAPSBENCH_WORD "$word"
    $words[1] completion fish --answer 2>/dev/null
end
complete -c capsbench -f -k -a '(__capsbench_answer)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
