"""What a request may ask for, and how it is answered."""

import numpy as np

from inference import grpc_service_pb2 as pb
from services.inference.gate import Seen
from services.inference.oip import tensors
from services.shared.model import Model
from services.shared.suggestions import DEFAULT, best

PROBABILITY, EMOJI, EMBEDDING = "PROBABILITY", "EMOJI", "EMBEDDING"
NAMES = (PROBABILITY, EMOJI, EMBEDDING)
Wanted = dict[str, int]  # output -> how many of its best classes to return instead; 0 for itself


def wanted(request: pb.ModelInferRequest) -> Wanted:
    """The outputs that are asked for, in the order of the answer: all, where none is named.

    Raises:
        MalformedRequest: there is no such output, or not so.
    """
    found: Wanted = {}
    for output in request.outputs:
        name = output.name
        if name not in NAMES:
            raise tensors.malformed("outputs", f"are {', '.join(NAMES)}, not {name[:40]!r}")
        if name in found:
            raise tensors.malformed("outputs", f"must name {name} once")
        tensors.unshared(output.parameters, name)
        found[name] = tensors.whole(output.parameters, "classification")
        if found[name] and name != PROBABILITY:
            raise tensors.malformed("classification", f"is of {PROBABILITY}, not of {name}")
    return found or dict.fromkeys(NAMES, 0)


def fill(
    response: pb.ModelInferResponse, wanted: Wanted, model: Model, seen: list[Seen], raw: bool
) -> None:
    """Puts what was seen of each picture into the outputs that are wanted."""
    for name, classes in wanted.items():
        if name == EMBEDDING:
            embeddings_NF = np.stack([one.embedding_F for one in seen])  # type: ignore[misc]
            tensors.add_floats(response, name, embeddings_NF, raw)
        elif name == EMOJI:
            rows = [_emoji(model, one.probabilities_K) for one in seen]
            tensors.add_texts(response, name, rows, raw)
        elif classes:
            rows = [_classes(model, one.probabilities_K, classes) for one in seen]
            tensors.add_texts(response, name, rows, raw)
        else:
            probabilities_NK = np.stack([one.probabilities_K for one in seen])
            tensors.add_floats(response, name, probabilities_NK, raw)


def _emoji(model: Model, probabilities_K: np.ndarray) -> list[str]:
    return [model.vocabulary.emoji[output] for output in best(probabilities_K, DEFAULT)]


def _classes(model: Model, probabilities_K: np.ndarray, count: int) -> list[str]:
    """As Triton writes them: score:index:label."""
    return [
        f"{probabilities_K[output]:f}:{output}:{model.vocabulary.emoji[output]}"
        for output in best(probabilities_K, count)
    ]
