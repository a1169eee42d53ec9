import datetime

from emojinet.v1 import emoji_pb2 as _emoji_pb2
from emojinet.v1 import image_pb2 as _image_pb2
from emojinet.v1 import model_pb2 as _model_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_INTERACTIVE: _ClassVar[Priority]
    PRIORITY_BULK: _ClassVar[Priority]
PRIORITY_UNSPECIFIED: Priority
PRIORITY_INTERACTIVE: Priority
PRIORITY_BULK: Priority

class SuggestRequest(_message.Message):
    __slots__ = ("images", "max_suggestions", "min_probability", "priority", "include_embedding", "explain_emoji", "model")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_SUGGESTIONS_FIELD_NUMBER: _ClassVar[int]
    MIN_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_EMOJI_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[_image_pb2.Image]
    max_suggestions: int
    min_probability: float
    priority: Priority
    include_embedding: bool
    explain_emoji: str
    model: str
    def __init__(self, images: _Optional[_Iterable[_Union[_image_pb2.Image, _Mapping]]] = ..., max_suggestions: _Optional[int] = ..., min_probability: _Optional[float] = ..., priority: _Optional[_Union[Priority, str]] = ..., include_embedding: _Optional[bool] = ..., explain_emoji: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class SuggestResponse(_message.Message):
    __slots__ = ("results", "model")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SuggestResult]
    model: _model_pb2.ServedModel
    def __init__(self, results: _Optional[_Iterable[_Union[SuggestResult, _Mapping]]] = ..., model: _Optional[_Union[_model_pb2.ServedModel, _Mapping]] = ...) -> None: ...

class SuggestStreamRequest(_message.Message):
    __slots__ = ("id", "request")
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    id: int
    request: SuggestRequest
    def __init__(self, id: _Optional[int] = ..., request: _Optional[_Union[SuggestRequest, _Mapping]] = ...) -> None: ...

class SuggestStreamResponse(_message.Message):
    __slots__ = ("id", "response", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: int
    response: SuggestResponse
    error: _status_pb2.Status
    def __init__(self, id: _Optional[int] = ..., response: _Optional[_Union[SuggestResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class GetServedModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServedModelResponse(_message.Message):
    __slots__ = ("model", "emoji", "card")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EMOJI_FIELD_NUMBER: _ClassVar[int]
    CARD_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.ServedModel
    emoji: _containers.RepeatedScalarFieldContainer[str]
    card: str
    def __init__(self, model: _Optional[_Union[_model_pb2.ServedModel, _Mapping]] = ..., emoji: _Optional[_Iterable[str]] = ..., card: _Optional[str] = ...) -> None: ...

class SuggestResult(_message.Message):
    __slots__ = ("suggestions", "error", "timing")
    SUGGESTIONS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    suggestions: Suggestions
    error: _status_pb2.Status
    timing: Timing
    def __init__(self, suggestions: _Optional[_Union[Suggestions, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class Suggestions(_message.Message):
    __slots__ = ("suggestions", "embedding", "saliency")
    SUGGESTIONS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    SALIENCY_FIELD_NUMBER: _ClassVar[int]
    suggestions: _containers.RepeatedCompositeFieldContainer[_emoji_pb2.Suggestion]
    embedding: _containers.RepeatedScalarFieldContainer[float]
    saliency: Saliency
    def __init__(self, suggestions: _Optional[_Iterable[_Union[_emoji_pb2.Suggestion, _Mapping]]] = ..., embedding: _Optional[_Iterable[float]] = ..., saliency: _Optional[_Union[Saliency, _Mapping]] = ...) -> None: ...

class Saliency(_message.Message):
    __slots__ = ("emoji", "png", "box")
    EMOJI_FIELD_NUMBER: _ClassVar[int]
    PNG_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    emoji: str
    png: bytes
    box: Box
    def __init__(self, emoji: _Optional[str] = ..., png: _Optional[bytes] = ..., box: _Optional[_Union[Box, _Mapping]] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("left", "top", "right", "bottom")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_FIELD_NUMBER: _ClassVar[int]
    left: float
    top: float
    right: float
    bottom: float
    def __init__(self, left: _Optional[float] = ..., top: _Optional[float] = ..., right: _Optional[float] = ..., bottom: _Optional[float] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("decode_wait", "decode", "queue_wait", "compute", "total", "batch_size")
    DECODE_WAIT_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_WAIT_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    decode_wait: _duration_pb2.Duration
    decode: _duration_pb2.Duration
    queue_wait: _duration_pb2.Duration
    compute: _duration_pb2.Duration
    total: _duration_pb2.Duration
    batch_size: int
    def __init__(self, decode_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., decode: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., queue_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., compute: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., total: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., batch_size: _Optional[int] = ...) -> None: ...
