#!/usr/bin/env bash
# Train, evaluate, export and infer as a file of parameters says:
#   bash test_tipc/test_train_inference_python.sh PARAMS MODE
# MODE is lite_train_lite_infer, whole_train_whole_infer, or whole_infer, which starts from weights. Every command writes
# "Run successfully with command" or "Run failed with command" to test_tipc/output/MODEL/MODE/results_python.log; the
# exit code is 0 if all commands succeeded.
set -u
cd "$(dirname "$0")/.."

PARAMS=$1
MODE=$2
source test_tipc/common_func.sh
check_mode

MODEL_NAME=$(value model_name)
PYTHON=$(value python)
LOGS=$(value SAVE_PATH)/$MODEL_NAME/$MODE
RESULTS=$LOGS/results_python.log
FAILED=0
mkdir -p "$LOGS"
: >"$RESULTS"

# infer EXPORTED NAME: classify the images with an exported net, for each batch size.
infer() {
    local batch_size
    for batch_size in $(value --batch-size | tr '|' ' '); do
        # shellcheck disable=SC2046  # a setting without a value is no word
        run "$LOGS/$2_infer_batchsize_$batch_size.log" "$PYTHON" $(value inference) "$1" "$(value images)" \
            $(setting --batch-size "$batch_size") $(setting --topk "$(value --topk)") \
            --output "$LOGS/$2_infer_batchsize_$batch_size.csv"
    done
}

# export_and_infer SOURCE COMMAND NAME
export_and_infer() {
    local exported
    exported=$(value --output)/$MODEL_NAME/$MODE/$3
    rm -rf "$exported"
    # shellcheck disable=SC2086  # the command is a script with its options
    run "$LOGS/$3_export.log" "$PYTHON" $2 "$1" --output "$exported" && infer "$exported" "$3"
}

# train GPUS TRAINER: train on a GPU ("0"), several ("0,1") or the CPU ("-1"); then evaluate, export and infer.
train() {
    local gpus=$1 name=$2_gpus_$1 launch=() device=gpu folder
    case $gpus in
        -1) device=cpu ;;
        *,*) launch=(-m paddle.distributed.launch --gpus "$gpus" --log_dir "$LOGS/$name.launch") ;;
        *) export CUDA_VISIBLE_DEVICES=$gpus ;;
    esac
    folder=$LOGS/$name
    rm -rf "$folder"
    # shellcheck disable=SC2046
    run "$LOGS/$name.log" "$PYTHON" ${launch[@]+"${launch[@]}"} $(value_of_mode "$2") DEVICE=$device \
        SAVE_PATH="$LOGS" MODEL="$name" $(setting EPOCHS "$(value_of_mode EPOCHS)") \
        $(setting DATASET.BATCH_SIZE "$(value_of_mode DATASET.BATCH_SIZE)") \
        $(setting DATA_DIR "$(value_of_mode DATA_DIR)") \
        $(setting NET.INITIAL_WEIGHTS "$(value NET.INITIAL_WEIGHTS)") || return
    # shellcheck disable=SC2046
    run "$LOGS/$name.eval.log" "$PYTHON" $(value eval) --cfg "$folder/config.yaml" RESUME_PATH="$folder"
    export_and_infer "$folder" "$(value norm_export)" "$name"
    unset CUDA_VISIBLE_DEVICES
}

if [ "$MODE" = whole_infer ]; then
    export_and_infer "$(value train_model)" "$(value infer_export)" infer
else
    for gpus in $(value gpu_list | tr '|' ' '); do
        for trainer in $(value trainer | tr '|' ' '); do
            train "$gpus" "$trainer"
        done
    done
fi
exit "$FAILED"
