from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_MALFORMED_REQUEST: _ClassVar[ErrorReason]
    ERROR_REASON_EMPTY_IMAGE: _ClassVar[ErrorReason]
    ERROR_REASON_UNDECODABLE_IMAGE: _ClassVar[ErrorReason]
    ERROR_REASON_UNSUPPORTED_FORMAT: _ClassVar[ErrorReason]
    ERROR_REASON_IMAGE_TOO_LARGE: _ClassVar[ErrorReason]
    ERROR_REASON_DECODE_LIMIT: _ClassVar[ErrorReason]
    ERROR_REASON_DECODER_DIED: _ClassVar[ErrorReason]
    ERROR_REASON_OVERLOADED: _ClassVar[ErrorReason]
    ERROR_REASON_DEADLINE_TOO_SHORT: _ClassVar[ErrorReason]
    ERROR_REASON_NO_MODEL: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_MODEL: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_EMOJI: _ClassVar[ErrorReason]
    ERROR_REASON_DRAINING: _ClassVar[ErrorReason]
    ERROR_REASON_DEVICE_DIED: _ClassVar[ErrorReason]
    ERROR_REASON_INTERNAL: _ClassVar[ErrorReason]
    ERROR_REASON_FILE_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_FILE_UNREADABLE: _ClassVar[ErrorReason]
    ERROR_REASON_SERVER_UNREACHABLE: _ClassVar[ErrorReason]
    ERROR_REASON_URL_REFUSED: _ClassVar[ErrorReason]
    ERROR_REASON_URL_FAILED: _ClassVar[ErrorReason]
    ERROR_REASON_BAD_MODEL: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_CRAWL: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_DATASET: _ClassVar[ErrorReason]
    ERROR_REASON_ALREADY_EXISTS: _ClassVar[ErrorReason]
    ERROR_REASON_NOT_READY: _ClassVar[ErrorReason]
    ERROR_REASON_BAD_SOURCE: _ClassVar[ErrorReason]
    ERROR_REASON_SOURCE_REFUSED: _ClassVar[ErrorReason]
    ERROR_REASON_STORAGE_FAILED: _ClassVar[ErrorReason]
    ERROR_REASON_BAD_DATASET: _ClassVar[ErrorReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_MALFORMED_REQUEST: ErrorReason
ERROR_REASON_EMPTY_IMAGE: ErrorReason
ERROR_REASON_UNDECODABLE_IMAGE: ErrorReason
ERROR_REASON_UNSUPPORTED_FORMAT: ErrorReason
ERROR_REASON_IMAGE_TOO_LARGE: ErrorReason
ERROR_REASON_DECODE_LIMIT: ErrorReason
ERROR_REASON_DECODER_DIED: ErrorReason
ERROR_REASON_OVERLOADED: ErrorReason
ERROR_REASON_DEADLINE_TOO_SHORT: ErrorReason
ERROR_REASON_NO_MODEL: ErrorReason
ERROR_REASON_UNKNOWN_MODEL: ErrorReason
ERROR_REASON_UNKNOWN_EMOJI: ErrorReason
ERROR_REASON_DRAINING: ErrorReason
ERROR_REASON_DEVICE_DIED: ErrorReason
ERROR_REASON_INTERNAL: ErrorReason
ERROR_REASON_FILE_NOT_FOUND: ErrorReason
ERROR_REASON_FILE_UNREADABLE: ErrorReason
ERROR_REASON_SERVER_UNREACHABLE: ErrorReason
ERROR_REASON_URL_REFUSED: ErrorReason
ERROR_REASON_URL_FAILED: ErrorReason
ERROR_REASON_BAD_MODEL: ErrorReason
ERROR_REASON_UNKNOWN_CRAWL: ErrorReason
ERROR_REASON_UNKNOWN_DATASET: ErrorReason
ERROR_REASON_ALREADY_EXISTS: ErrorReason
ERROR_REASON_NOT_READY: ErrorReason
ERROR_REASON_BAD_SOURCE: ErrorReason
ERROR_REASON_SOURCE_REFUSED: ErrorReason
ERROR_REASON_STORAGE_FAILED: ErrorReason
ERROR_REASON_BAD_DATASET: ErrorReason
