"""What tests ask of the stock client, in a process and an environment of its own.

It must not share a process with our stubs: both describe the same messages. Run as
`python stock_client.py ADDRESS SCENARIO FOLDER`; prints what it saw as JSON.
"""

import asyncio
import json
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODEL = "starter"
Seen = dict[str, Any]


def main(address: str, scenario: str, folder: str) -> None:
    """Plays one of the scenarios below."""
    print(json.dumps(SCENARIOS[scenario](address, Path(folder))))


def contract(address: str, folder: Path) -> Seen:
    """Number, type and name of every field in the messages that the client knows."""
    from tritonclient.grpc import model_config_pb2, service_pb2

    def fields(message: Any) -> dict[str, list[Any]]:
        found = {f"{message.full_name}.{f.name}": [f.number, f.type] for f in message.fields}
        for nested in message.nested_types:
            found |= fields(nested)
        return found

    files = (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
    return {
        name: value
        for file in files
        for message in file.message_types_by_name.values()
        for name, value in fields(message).items()
    }


def description(address: str, folder: Path) -> Seen:
    """What the server says of itself and its model."""
    client = opened(address)
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model": client.is_model_ready(MODEL),
        "other": client.is_model_ready("other"),
        "server": client.get_server_metadata(as_json=True),
        "metadata": client.get_model_metadata(MODEL, as_json=True),
        "config": client.get_model_config(MODEL, as_json=True)["config"],
        "index": client.get_model_repository_index(as_json=True)["models"],
        "load": refusal(lambda: client.load_model(MODEL)),
        "unload": refusal(lambda: client.unload_model(MODEL)),
    }


def pictures(address: str, folder: Path) -> Seen:
    """Probabilities for a file, and for the pixels that it holds."""
    import numpy as np
    import tritonclient.grpc as triton

    client, pixels = opened(address), np.load(folder / "pixels.npy")
    square = triton.InferInput("PIXELS", list(pixels.shape), "FP32")
    square.set_data_from_numpy(pixels)
    encoded = client.infer(MODEL, [image(folder)], request_id="7", priority=2, timeout=9_000_000)
    decoded = client.infer(MODEL, [square])
    return {
        "encoded": encoded.as_numpy("PROBABILITY")[0].tolist(),
        "decoded": decoded.as_numpy("PROBABILITY")[0].tolist(),
        "emoji": [text.decode() for text in encoded.as_numpy("EMOJI")[0]],
        "embedding": list(encoded.as_numpy("EMBEDDING").shape),
        "id": encoded.get_response().id,
        "model": encoded.get_response().model_name,
    }


def classes(address: str, folder: Path) -> Seen:
    """The best three of two pictures."""
    import tritonclient.grpc as triton

    best = triton.InferRequestedOutput("PROBABILITY", class_count=3)
    answer = opened(address).infer(MODEL, [image(folder, 2)], outputs=[best])
    rows = answer.as_numpy("PROBABILITY")
    return {
        "rows": [[text.decode() for text in row] for row in rows],
        "outputs": len(answer.get_response().outputs),
    }


def asynchronous(address: str, folder: Path) -> Seen:
    """One call that is waited for, and one that is cancelled."""
    client, answers = opened(address), queue.Queue[Any]()

    def answered(result: Any, error: Any) -> None:
        answers.put(str(error.status()) if error else result.as_numpy("PROBABILITY").shape[1])

    client.async_infer(MODEL, [image(folder)], answered)
    first = answers.get(timeout=20)
    client.async_infer(MODEL, [image(folder, 64)], answered).cancel()
    return {"first": first, "cancelled": answers.get(timeout=20)}


def aio(address: str, folder: Path) -> Seen:
    """Eight calls at once, a stream, and a call that is given up."""
    import tritonclient.grpc.aio as triton

    async def requests() -> Any:
        for number in range(3):
            yield {"model_name": MODEL, "inputs": [image(folder)], "request_id": str(number)}

    async def calls() -> Seen:
        async with triton.InferenceServerClient(address) as client:
            many = [client.infer(MODEL, [image(folder)]) for _ in range(8)]
            answers = await asyncio.gather(*many)
            stream = client.stream_infer(requests())
            ids = [result.get_response().id async for result, error in stream if error is None]
            given_up = asyncio.create_task(client.infer(MODEL, [image(folder, 64)]))
            await asyncio.sleep(0.05)
            given_up.cancel()
            outcome = await asyncio.gather(given_up, return_exceptions=True)
            return {
                "emoji": [answer.as_numpy("EMOJI")[0][0].decode() for answer in answers],
                "stream": ids,
                "given_up": type(outcome[0]).__name__,
            }

    return asyncio.run(calls())


def failures(address: str, folder: Path) -> Seen:
    """How what is wrong is told."""
    import numpy as np
    import tritonclient.grpc as triton

    client, bad = opened(address), triton.InferInput("IMAGE", [2], "BYTES")
    bad.set_data_from_numpy(np.array([file(folder), b"no picture"], np.object_))
    started = time.monotonic()
    late = refusal(lambda: client.infer(MODEL, [image(folder, 64)], client_timeout=0.05))
    return {
        "late": late,
        "late_seconds": time.monotonic() - started,
        "hopeless": refusal(lambda: client.infer(MODEL, [image(folder)], timeout=1000)),
        "unknown": refusal(lambda: client.infer("other", [image(folder)])),
        "version": refusal(lambda: client.infer(MODEL, [image(folder)], model_version="1")),
        "bad": refusal(lambda: client.infer(MODEL, [bad])),
    }


def stream(address: str, folder: Path) -> Seen:
    """Twenty requests of one stream, of which one fails."""
    import tritonclient.grpc as triton

    client, answers, done = opened(address), list[str](), threading.Event()

    def answered(result: Any, error: Any) -> None:
        answers.append(str(error) if error else result.get_response().id)
        if len(answers) == 20:
            done.set()

    empty = triton.InferInput("IMAGE", [0], "BYTES")
    client.start_stream(answered)
    for number in range(20):
        inputs = [empty if number == 5 else image(folder)]
        client.async_stream_infer(MODEL, inputs, request_id=str(number))
    done.wait(30)
    client.stop_stream()
    return {"answers": answers}


def statistics(address: str, folder: Path) -> Seen:
    """What the server has counted of five calls."""
    client = opened(address)
    for _ in range(5):
        client.infer(MODEL, [image(folder, 2)])
    seen: Seen = client.get_inference_statistics(MODEL, as_json=True)["model_stats"][0]
    return seen


def opened(address: str) -> Any:
    import tritonclient.grpc as triton

    return triton.InferenceServerClient(address)


def file(folder: Path) -> bytes:
    return (folder / "photo.jpg").read_bytes()


def image(folder: Path, count: int = 1) -> Any:
    import numpy as np
    import tritonclient.grpc as triton

    tensor = triton.InferInput("IMAGE", [count], "BYTES")
    tensor.set_data_from_numpy(np.array([file(folder)] * count, np.object_))
    return tensor


def refusal(call: Callable[[], Any]) -> list[str]:
    """Status and words of a call that has to fail."""
    from tritonclient.utils import InferenceServerException

    try:
        call()
    except InferenceServerException as error:
        return [str(error.status()).removeprefix("StatusCode."), str(error.message())]
    return ["OK", ""]


SCENARIOS: dict[str, Callable[[str, Path], Seen]] = {
    play.__name__: play
    for play in (
        contract, description, pictures, classes, asynchronous, aio, failures, stream, statistics
    )
}  # fmt: skip

if __name__ == "__main__":
    main(*sys.argv[1:])
