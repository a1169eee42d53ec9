#!/usr/bin/env bash
# `make k8s-smoke`: does it run on your cluster, the one that kubectl speaks to? Applies an overlay,
# waits until all of it is ready, asks the page for emoji for a photograph, and prints PASS.
#
#   REGISTRY=…   where your cluster finds the images
#   OVERLAY=cpu  which of k8s/overlays
#   PORT=18080   a free port of this machine
set -euo pipefail
cd "$(dirname "$0")"
kubectl=${KUBECTL:-kubectl}
port=${PORT:-18080}

ours() { "$kubectl" --namespace emojinet "$@"; }

fail() {
  echo "FAIL: $1. This is how it looks:" >&2
  ours get pods >&2 || true
  ours get events --field-selector type=Warning --sort-by lastTimestamp >&2 || true
  exit 1
}

"$kubectl" kustomize "overlays/${OVERLAY:-cpu}" |
  sed "s#image: emojinet-#image: ${REGISTRY:+$REGISTRY/}emojinet-#" |
  "$kubectl" apply --filename - || fail "it was not applied"

for name in inference crawler trainer web; do
  ours rollout status "deployment/emojinet-$name" --timeout 300s || fail "$name is not ready"
done

# Not by `ours`: in the background that would be a shell, whose end kubectl would not notice.
"$kubectl" --namespace emojinet port-forward service/emojinet-web "$port:80" >/dev/null &
forwarding=$!
trap 'kill "$forwarding" 2>/dev/null || true' EXIT
page="http://127.0.0.1:$port"
curl --silent --retry 20 --retry-delay 1 --retry-all-errors "$page/healthz" >/dev/null ||
  fail "the page does not answer"
answer=$(curl --silent --show-error --fail-with-body --max-time 30 \
  --form image=@../clients/web/static/examples/cat.jpg "$page/api/suggest") ||
  fail "there is no suggestion: $answer"
emoji=$(grep --only-matching '"emoji": *"[^"]*"' <<<"$answer" | head --lines 1) ||
  fail "there is no emoji in: $answer"
echo "PASS: for a photograph of a cat, $emoji"
