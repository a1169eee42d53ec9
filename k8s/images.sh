#!/usr/bin/env bash
# `make images` and `make images-push REGISTRY=…`: the images that k8s/base runs, tagged with the
# version and never with `latest`.
#
#   IMAGES       which of crawler, inference, trainer, web; without it all
#   ACCELERATOR  cpu; or cuda: inference and trainer with PyTorch for NVIDIA's GPUs, tagged …-cuda,
#                which nobody has tested
#   BUILDER      docker, podman or buildah; without it the first of them that works here
#   BASE         a Debian 12
#   TORCH_INDEX  where PyTorch's packages are; with nothing in it PyPI, whose are 4 GB, for CUDA
#   FLAGS        more for the builder
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
accelerator=${ACCELERATOR:-cpu}

fail() {
  echo "error: $1" >&2
  exit 1
}

case $accelerator in
  cpu) images=${IMAGES:-crawler inference trainer web} tag=$version wheels=cpu ;;
  cuda) images=${IMAGES:-inference trainer} tag=$version-cuda wheels=cu130 ;;
  *) fail "ACCELERATOR is $accelerator; it would be cpu or cuda" ;;
esac

for builder in ${BUILDER:-docker podman buildah} none; do
  if "$builder" info >/dev/null 2>&1; then break; fi
done
[[ $builder != none ]] || fail "none of ${BUILDER:-docker, podman and buildah} works here; install one, or name it by BUILDER=…"

build() {
  local arguments=(--build-arg "VERSION=$version")
  arguments+=(--build-arg "REVISION=$(git describe --always --dirty --abbrev=40 2>/dev/null || true)")
  arguments+=(--build-arg "TORCH_INDEX=${TORCH_INDEX-https://download.pytorch.org/whl/$wheels}")
  [[ -z ${BASE:-} ]] || arguments+=(--build-arg "BASE=$BASE")
  [[ $accelerator$1 != cudainference ]] || arguments+=(--build-arg EXTRAS=torch)
  # shellcheck disable=SC2206 # they are words
  arguments+=(${FLAGS:-})
  local folder=services/$1
  [[ $1 != web ]] || folder=clients/web
  [[ -f $folder/Dockerfile ]] || fail "there is no image called $1"
  "$builder" build "${arguments[@]}" --file "$folder/Dockerfile" --tag "emojinet-$1:$tag" .
}

push() {
  [[ -n ${REGISTRY:-} ]] || fail "say where to: REGISTRY=registry.example/team"
  "$builder" tag "emojinet-$1:$tag" "$REGISTRY/emojinet-$1:$tag"
  # shellcheck disable=SC2086 # they are words
  "$builder" push ${FLAGS:-} "$REGISTRY/emojinet-$1:$tag"
}

for image in $images; do
  case ${1:-} in
    build | push) "$1" "$image" ;;
    *) fail "use: $0 build|push" ;;
  esac
done
