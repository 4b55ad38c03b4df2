#!/usr/bin/env bash
# Inside the container: serve one model repository, on one GPU or on several.
#
#     serve_repository.sh [--world-size N | --multi-model] [--dry-run] REPOSITORY
#
# Leader mode (--world-size N): MPI starts N servers, one a GPU. Rank 0 answers the clients and loads every model; the
# others load tensorrt_llm alone and follow it. N is tp x pp of the engine, no more and no less.
# Orchestrator mode (--multi-model): one server, which starts its own workers. For several models with engines.
#
# The models are named one by one, because Triton would take _assets for a model without a config, and end.
set -euo pipefail

world_size=1
multi_model=false
dry_run=false
while (($# > 1)); do
    case "$1" in
        --world-size) world_size="$2"; shift 2 ;;
        --multi-model) multi_model=true; shift ;;
        --dry-run) dry_run=true; shift ;;
        *) echo "unknown option $1" >&2; exit 2 ;;
    esac
done
repository="${1:?name a model repository}"
if ! [[ ${world_size} =~ ^[1-9][0-9]*$ ]]; then
    echo "--world-size ${world_size}: it is the number of GPUs, tp x pp of the engine" >&2
    exit 2
fi
if ${multi_model} && ((world_size > 1)); then
    echo "--multi-model starts the workers itself: leave --world-size out" >&2
    exit 2
fi
cd "${repository}" # paths in the configs start here

models=()
for config in */config.pbtxt; do
    [[ -f ${config} ]] && models+=("--load-model=${config%%/*}")
done
if ((${#models[@]} == 0)); then
    echo "no model in ${PWD}: a model is a folder with a config.pbtxt" >&2
    exit 1
fi

# A call from the BLS holds a thread until it is answered: with the default of 32 none is left for one that cancels.
common=(--model-repository=. --model-control-mode=explicit "--backend-config=python,thread-pool-size=256")
if ((world_size == 1)); then
    run=(tritonserver "${common[@]}" "${models[@]}")
else
    run=(mpirun --allow-run-as-root)
    for ((rank = 0; rank < world_size; rank++)); do
        ((rank > 0)) && run+=(:) && models=(--load-model=tensorrt_llm)
        run+=(-n 1 tritonserver "${common[@]}" "${models[@]}" --disable-auto-complete-config)
        run+=("--backend-config=python,shm-region-prefix-name=rank${rank}_")
        ((rank > 0)) && run+=(--allow-http=false --allow-grpc=false --allow-metrics=false)
    done
fi
if ${multi_model}; then
    export TRTLLM_ORCHESTRATOR=1
    run=(mpirun --allow-run-as-root -n 1 "${run[@]}")
fi

if ${dry_run}; then
    printf '%q ' "${run[@]}"
    echo
else
    exec "${run[@]}"
fi
