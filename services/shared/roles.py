"""Which role each call needs: the one table. What does not stand in it nobody may call."""

SUGGEST, OPERATE = "suggest", "operate"  # who operates may suggest, too
ROLES = (SUGGEST, OPERATE)
ANYONE = ""  # no token at all

_TABLE = (
    ("grpc.health.v1.Health", ANYONE, "Check List Watch"),
    ("emojinet.v1.InferenceService", SUGGEST, "Suggest SuggestStream GetServedModel"),
    (
        "inference.GRPCInferenceService",
        SUGGEST,
        "ServerLive ServerReady ModelReady ServerMetadata ModelMetadata ModelInfer "
        "ModelStreamInfer ModelConfig ModelStatistics RepositoryIndex",
    ),
    ("inference.GRPCInferenceService", OPERATE, "RepositoryModelLoad RepositoryModelUnload"),
    (
        "emojinet.v1.CrawlerService",
        OPERATE,
        "StartCrawl GetCrawl ListCrawls WatchCrawl CancelCrawl "
        "CreateDataset GetDataset ListDatasets WatchDataset RemoveContent",
    ),
    (
        "emojinet.v1.TrainerService",
        OPERATE,
        "StartRun GetRun ListRuns WatchRun CancelRun PublishModel ListModels ActivateModel",
    ),
    ("grpc.reflection.v1alpha.ServerReflection", OPERATE, "ServerReflectionInfo"),
)
NEEDED = {
    f"/{service}/{method}": role for service, role, methods in _TABLE for method in methods.split()
}


def may(role: str, needed: str) -> bool:
    """Whether who has the one role may do what needs the other.

    >>> may(OPERATE, SUGGEST), may(SUGGEST, OPERATE)
    (True, False)
    """
    return role in (needed, OPERATE)
