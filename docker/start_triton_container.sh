#!/usr/bin/env bash
# Start the container with the workspace mounted under /opt/tritonserver/projects, and serve a repository in it.
#
#     docker/start_triton_container.sh smollm2-135m-instruct/float16
#     docker/start_triton_container.sh --world-size 2 llama-7b/float16-tp2
#     docker/start_triton_container.sh --shell                              build engines by hand
#     docker/start_triton_container.sh --dry-run --shell                    print the call, run nothing
set -euo pipefail

image="llm-serving-labs:25.06"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
work="${LABS_WORKSPACE:-${here}/../work}"
projects="/opt/tritonserver/projects"
shell=false
dry_run=false
pass=()

usage() {
    sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    echo "options: --image IMAGE  --world-size N  --multi-model  --shell  --dry-run"
}

repository=""
while (($#)); do
    case "$1" in
        --image) image="${2:?--image needs a name}"; shift 2 ;;
        --world-size) pass+=("$1" "${2:?--world-size needs a number}"); shift 2 ;;
        --multi-model) pass+=("$1"); shift ;;
        --shell) shell=true; shift ;;
        --dry-run) dry_run=true; shift ;;
        -h | --help) usage; exit 0 ;;
        -*) echo "unknown option $1" >&2; usage >&2; exit 2 ;;
        *) repository="$1"; shift ;;
    esac
done
if ! ${shell} && [[ -z ${repository} ]]; then
    echo "name a repository: <model>/<recipe>, a folder in ${work}/model_repositories" >&2
    exit 2
fi
if ! ${shell} && ! ${dry_run} && [[ ! -d ${work}/model_repositories/${repository} ]]; then
    echo "no folder ${work}/model_repositories/${repository}; write it with: labs assemble ENGINE --tokenizer FOLDER" >&2
    exit 1
fi

run=(docker run --rm --interactive --gpus all)
[[ -t 0 ]] && run+=(--tty)
run+=(--shm-size=2g --ulimit memlock=-1 --ulimit stack=67108864) # Python models talk through shared memory, MPI pins it
run+=(--publish 127.0.0.1:8000:8000 --publish 127.0.0.1:8001:8001 --publish 127.0.0.1:8002:8002)
for folder in checkpoints trt_checkpoints engines model_repositories; do
    ${dry_run} || mkdir -p "${work}/${folder}" # docker would make a missing one as root
    run+=(--volume "${work}/${folder}:${projects}/${folder}")
done
run+=(--volume "${here}/scripts:${projects}/scripts:ro" --workdir "${projects}" "${image}")
if ${shell}; then
    run+=(bash)
else
    run+=(bash scripts/serve_repository.sh ${pass[@]+"${pass[@]}"} "model_repositories/${repository}")
fi

if ${dry_run}; then
    printf '%q ' "${run[@]}"
    echo
else
    exec "${run[@]}"
fi
