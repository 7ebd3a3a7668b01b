#!/usr/bin/env bash
# Prepare the images of a mode: bash test_tipc/prepare.sh PARAMS MODE
set -eu
cd "$(dirname "$0")/.."

PARAMS=$1
MODE=$2
source test_tipc/common_func.sh
check_mode

images=$(value images)
mkdir -p "$images"
case $MODE in
    lite_train_lite_infer | whole_infer)
        # The training reads the embedded images as they are; one image of each class is for inference.
        tar -xf data/fashion_mnist/val.tar -C "$images" --wildcards '*/0000.png'
        ;;
    whole_train_whole_infer)
        data=$(value_of_mode DATA_DIR)
        [ -e "$data/val" ] || { echo "error: $data must hold ImageNet's train/ and val/, a folder for each class" >&2; exit 2; }
        for class in $(ls "$data/val" | head -n 10); do
            find "$data/val/$class" -name '*.JPEG' | sort | head -n 1 | xargs -I{} cp {} "$images/"
        done
        ;;
esac
echo "$(find "$images" -type f | wc -l) images to infer are in $images"
