import datetime

from emojinet.v1 import state_pb2 as _state_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CrawlMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CRAWL_MODE_UNSPECIFIED: _ClassVar[CrawlMode]
    CRAWL_MODE_RANK: _ClassVar[CrawlMode]
    CRAWL_MODE_COLLECT: _ClassVar[CrawlMode]
CRAWL_MODE_UNSPECIFIED: CrawlMode
CRAWL_MODE_RANK: CrawlMode
CRAWL_MODE_COLLECT: CrawlMode

class StartCrawlRequest(_message.Message):
    __slots__ = ("mode", "imported", "instagram", "bluesky", "vocabulary_crawl", "vocabulary_size", "rules", "max_posts", "max_duration")
    MODE_FIELD_NUMBER: _ClassVar[int]
    IMPORTED_FIELD_NUMBER: _ClassVar[int]
    INSTAGRAM_FIELD_NUMBER: _ClassVar[int]
    BLUESKY_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_CRAWL_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_SIZE_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    MAX_POSTS_FIELD_NUMBER: _ClassVar[int]
    MAX_DURATION_FIELD_NUMBER: _ClassVar[int]
    mode: CrawlMode
    imported: ImportSource
    instagram: InstagramSource
    bluesky: BlueskySource
    vocabulary_crawl: str
    vocabulary_size: int
    rules: KeepRules
    max_posts: int
    max_duration: _duration_pb2.Duration
    def __init__(self, mode: _Optional[_Union[CrawlMode, str]] = ..., imported: _Optional[_Union[ImportSource, _Mapping]] = ..., instagram: _Optional[_Union[InstagramSource, _Mapping]] = ..., bluesky: _Optional[_Union[BlueskySource, _Mapping]] = ..., vocabulary_crawl: _Optional[str] = ..., vocabulary_size: _Optional[int] = ..., rules: _Optional[_Union[KeepRules, _Mapping]] = ..., max_posts: _Optional[int] = ..., max_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class StartCrawlResponse(_message.Message):
    __slots__ = ("crawl",)
    CRAWL_FIELD_NUMBER: _ClassVar[int]
    crawl: Crawl
    def __init__(self, crawl: _Optional[_Union[Crawl, _Mapping]] = ...) -> None: ...

class GetCrawlRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetCrawlResponse(_message.Message):
    __slots__ = ("crawl",)
    CRAWL_FIELD_NUMBER: _ClassVar[int]
    crawl: Crawl
    def __init__(self, crawl: _Optional[_Union[Crawl, _Mapping]] = ...) -> None: ...

class ListCrawlsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCrawlsResponse(_message.Message):
    __slots__ = ("crawls",)
    CRAWLS_FIELD_NUMBER: _ClassVar[int]
    crawls: _containers.RepeatedCompositeFieldContainer[Crawl]
    def __init__(self, crawls: _Optional[_Iterable[_Union[Crawl, _Mapping]]] = ...) -> None: ...

class WatchCrawlRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class WatchCrawlResponse(_message.Message):
    __slots__ = ("crawl",)
    CRAWL_FIELD_NUMBER: _ClassVar[int]
    crawl: Crawl
    def __init__(self, crawl: _Optional[_Union[Crawl, _Mapping]] = ...) -> None: ...

class CancelCrawlRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CancelCrawlResponse(_message.Message):
    __slots__ = ("crawl",)
    CRAWL_FIELD_NUMBER: _ClassVar[int]
    crawl: Crawl
    def __init__(self, crawl: _Optional[_Union[Crawl, _Mapping]] = ...) -> None: ...

class CreateDatasetRequest(_message.Message):
    __slots__ = ("crawls", "name", "validation_share", "test_share")
    CRAWLS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_SHARE_FIELD_NUMBER: _ClassVar[int]
    TEST_SHARE_FIELD_NUMBER: _ClassVar[int]
    crawls: _containers.RepeatedScalarFieldContainer[str]
    name: str
    validation_share: float
    test_share: float
    def __init__(self, crawls: _Optional[_Iterable[str]] = ..., name: _Optional[str] = ..., validation_share: _Optional[float] = ..., test_share: _Optional[float] = ...) -> None: ...

class CreateDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: Dataset
    def __init__(self, dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: Dataset
    def __init__(self, dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDatasetsResponse(_message.Message):
    __slots__ = ("datasets",)
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[Dataset]
    def __init__(self, datasets: _Optional[_Iterable[_Union[Dataset, _Mapping]]] = ...) -> None: ...

class WatchDatasetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class WatchDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: Dataset
    def __init__(self, dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class RemoveContentRequest(_message.Message):
    __slots__ = ("post", "author", "image_sha256", "compact")
    POST_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SHA256_FIELD_NUMBER: _ClassVar[int]
    COMPACT_FIELD_NUMBER: _ClassVar[int]
    post: PostReference
    author: AuthorReference
    image_sha256: str
    compact: bool
    def __init__(self, post: _Optional[_Union[PostReference, _Mapping]] = ..., author: _Optional[_Union[AuthorReference, _Mapping]] = ..., image_sha256: _Optional[str] = ..., compact: _Optional[bool] = ...) -> None: ...

class RemoveContentResponse(_message.Message):
    __slots__ = ("removed_images", "excluded_samples", "datasets")
    REMOVED_IMAGES_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    removed_images: int
    excluded_samples: int
    datasets: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, removed_images: _Optional[int] = ..., excluded_samples: _Optional[int] = ..., datasets: _Optional[_Iterable[str]] = ...) -> None: ...

class ImportSource(_message.Message):
    __slots__ = ("path", "columns")
    class ColumnsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PATH_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    path: str
    columns: _containers.ScalarMap[str, str]
    def __init__(self, path: _Optional[str] = ..., columns: _Optional[_Mapping[str, str]] = ...) -> None: ...

class InstagramSource(_message.Message):
    __slots__ = ("base_url", "token_file")
    BASE_URL_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FILE_FIELD_NUMBER: _ClassVar[int]
    base_url: str
    token_file: str
    def __init__(self, base_url: _Optional[str] = ..., token_file: _Optional[str] = ...) -> None: ...

class BlueskySource(_message.Message):
    __slots__ = ("jetstream_url", "originals", "cdn_url", "directory_url", "cursor")
    JETSTREAM_URL_FIELD_NUMBER: _ClassVar[int]
    ORIGINALS_FIELD_NUMBER: _ClassVar[int]
    CDN_URL_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_URL_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    jetstream_url: str
    originals: bool
    cdn_url: str
    directory_url: str
    cursor: str
    def __init__(self, jetstream_url: _Optional[str] = ..., originals: _Optional[bool] = ..., cdn_url: _Optional[str] = ..., directory_url: _Optional[str] = ..., cursor: _Optional[str] = ...) -> None: ...

class KeepRules(_message.Message):
    __slots__ = ("max_hashtags", "images_per_emoji", "images_per_author")
    MAX_HASHTAGS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_PER_EMOJI_FIELD_NUMBER: _ClassVar[int]
    IMAGES_PER_AUTHOR_FIELD_NUMBER: _ClassVar[int]
    max_hashtags: int
    images_per_emoji: int
    images_per_author: int
    def __init__(self, max_hashtags: _Optional[int] = ..., images_per_emoji: _Optional[int] = ..., images_per_author: _Optional[int] = ...) -> None: ...

class Crawl(_message.Message):
    __slots__ = ("name", "state", "request", "activity", "funnel", "vocabulary", "error", "create_time", "end_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    FUNNEL_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: _state_pb2.State
    request: StartCrawlRequest
    activity: str
    funnel: Funnel
    vocabulary: _containers.RepeatedCompositeFieldContainer[EmojiCount]
    error: _status_pb2.Status
    create_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[_state_pb2.State, str]] = ..., request: _Optional[_Union[StartCrawlRequest, _Mapping]] = ..., activity: _Optional[str] = ..., funnel: _Optional[_Union[Funnel, _Mapping]] = ..., vocabulary: _Optional[_Iterable[_Union[EmojiCount, _Mapping]]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class EmojiCount(_message.Message):
    __slots__ = ("emoji", "count")
    EMOJI_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    emoji: str
    count: int
    def __init__(self, emoji: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class Funnel(_message.Message):
    __slots__ = ("counts",)
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.RepeatedCompositeFieldContainer[FunnelCount]
    def __init__(self, counts: _Optional[_Iterable[_Union[FunnelCount, _Mapping]]] = ...) -> None: ...

class FunnelCount(_message.Message):
    __slots__ = ("stage", "outcome", "count")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    stage: str
    outcome: str
    count: int
    def __init__(self, stage: _Optional[str] = ..., outcome: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class Dataset(_message.Message):
    __slots__ = ("name", "state", "request", "uri", "digest", "samples", "excluded", "funnel", "error", "create_time", "end_time")
    class SamplesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_FIELD_NUMBER: _ClassVar[int]
    FUNNEL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: _state_pb2.State
    request: CreateDatasetRequest
    uri: str
    digest: str
    samples: _containers.ScalarMap[str, int]
    excluded: int
    funnel: Funnel
    error: _status_pb2.Status
    create_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[_state_pb2.State, str]] = ..., request: _Optional[_Union[CreateDatasetRequest, _Mapping]] = ..., uri: _Optional[str] = ..., digest: _Optional[str] = ..., samples: _Optional[_Mapping[str, int]] = ..., excluded: _Optional[int] = ..., funnel: _Optional[_Union[Funnel, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PostReference(_message.Message):
    __slots__ = ("source", "uri")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    source: str
    uri: str
    def __init__(self, source: _Optional[str] = ..., uri: _Optional[str] = ...) -> None: ...

class AuthorReference(_message.Message):
    __slots__ = ("source", "author")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    source: str
    author: str
    def __init__(self, source: _Optional[str] = ..., author: _Optional[str] = ...) -> None: ...
