# Functions that the scripts of this folder share.

# check_mode: end the script unless $MODE is one of the challenge's that are supported.
check_mode() {
    case $MODE in
        lite_train_lite_infer | whole_train_whole_infer | whole_infer) ;;
        *)
            echo "error: there is no mode $MODE; it can be lite_train_lite_infer, whole_train_whole_infer and whole_infer" >&2
            exit 2
            ;;
    esac
}

# value KEY: print what stands after "KEY:" in the file of parameters $PARAMS, or nothing for null.
value() {
    local found
    found=$(awk -v key="$1:" 'index($0, key) == 1 { print substr($0, length(key) + 1); exit }' "$PARAMS")
    [ "$found" = null ] || printf '%s' "$found"
}

# value_of_mode KEY: the same for a value such as "MODE=A|OTHER_MODE=B": print the part of the mode $MODE.
value_of_mode() {
    local part
    value "$1" | tr '|' '\n' | while read -r part || [ -n "$part" ]; do
        if [ "${part%%=*}" = "$MODE" ]; then printf '%s' "${part#*=}"; fi
    done
}

# setting KEY VALUE: print KEY=VALUE, or nothing without a value.
setting() {
    [ -z "$2" ] || printf '%s=%s' "$1" "$2"
}

# run LOG COMMAND: run a command with its output in a log and on the screen, and write whether it succeeded.
run() {
    local log=$1 status
    shift
    echo "$ $*" | tee "$log"
    "$@" 2>&1 | tee -a "$log"
    status=${PIPESTATUS[0]}
    if [ "$status" -eq 0 ]; then
        echo "Run successfully with command - $MODEL_NAME - $*!" | tee -a "$RESULTS"
    else
        echo "Run failed with command - $MODEL_NAME - $*! (exit code $status, log $log)" | tee -a "$RESULTS"
        FAILED=1
    fi
    return "$status"
}
