"""The whole story: a social network, what people post there, a model of it, and people who ask."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc

from clients import progress
from clients.client import Client
from clients.crawler_client import CrawlerClient
from clients.trainer_client import TrainerClient
from emojinet.v1 import crawler_service_pb2 as crawling
from emojinet.v1 import state_pb2 as states
from emojinet.v1 import trainer_service_pb2 as training
from services.shared import errors, photographs, shards
from services.shared.errors import EmojinetError
from services.shared.shards import Sample
from services.shared.vocabulary import Vocabulary
from tests.loop.asker import Asker
from tests.loop.programs import Ended, Programs, unheard
from tests.loop.steps import Steps
from tests.standin.child import Child

NAME = "loop"  # of the data set and of the model
RECIPE = "quick"
SHOWN = 8  # held-out pictures that are asked about before and after the swap
SUGGESTIONS = 5
MOST_USED = 16  # emoji of the vocabulary that are shown
ASK_SECONDS = 10.0
SWAP_SECONDS = 120.0  # within which the server has to follow
SETTLE_SECONDS = 5.0  # in which the client goes on asking the new model
DEATH_SECONDS = 1.0  # between a connection that breaks and the end of whoever held it

Work = TypeVar("Work", crawling.Crawl, crawling.Dataset, training.Run)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the network is, and what is made of it."""

    seed: int
    posts: int
    emoji: int
    """In use in the network."""
    vocabulary: int
    """How many of these, the most used, are learned."""
    skew: float
    """The exponent of Zipf's law, by which they are used."""
    authors: int
    duplicates: float
    """The share of pictures that show again what was posted before."""
    edge_px: int
    """Of a picture's longer edge, about."""
    steps: int
    """Of training."""
    test_share: float


@dataclass(frozen=True, kw_only=True)
class Told:
    """What came of it."""

    vocabulary: Vocabulary
    crawl: crawling.Crawl
    dataset: crawling.Dataset
    run: training.Run
    model: training.Model
    shown: Sequence[Sample]
    """Held-out pictures, with the emoji that they were posted with."""
    before: Sequence[Sequence[str]]
    after: Sequence[Sequence[str]]
    swap_seconds: float
    """From the call that activates the model to the first answer that comes from it."""
    asker: Asker
    seconds: Mapping[str, float]
    """By step."""


def tell(folder: Path, scale: Scale, steps: Steps) -> Told:
    """All of it, from its beginning to the end of every program that was started.

    Raises:
        EmojinetError: a step failed.
        Ended: a program ended that should not have.
        OSError: something cannot be written.
    """
    with ExitStack() as stack:
        programs = stack.enter_context(Programs(folder))
        story = _Story(folder, scale, steps, stack, programs)
        return story.tell()


class _Story:
    def __init__(
        self, folder: Path, scale: Scale, steps: Steps, stack: ExitStack, programs: Programs
    ) -> None:
        self._folder, self._scale, self._steps = folder, scale, steps
        self._stack, self._programs = stack, programs

    def tell(self) -> Told:
        """One step after the other."""
        with self._step("start", "a social network, the three services, a client that asks"):
            self._start()
        with self._step("rank", "which emoji the network uses most"):
            ranking, vocabulary = self._rank()
        with self._step("collect", "pictures of posts with one of these in their caption"):
            crawl = self._collect(ranking)
        with self._step("freeze", "the pictures as a data set, a part of it held out"):
            dataset = self._freeze(crawl)
            held_out = list(shards.read_samples(Path(dataset.uri), "test"))
            self._asker.pictures = [sample.jpeg for sample in held_out]
            shown = held_out[:SHOWN]  # their order is by chance
        with self._step("train", f"by the recipe `{RECIPE}`, and judge it on what was held out"):
            run = self._train(dataset)
        with self._step("publish", "the model, and serve it while the client goes on asking"):
            before = self._ask(shown)
            model, swap_seconds = self._publish(run)
            after = self._ask(shown)
        self._asker.stop()
        return Told(
            vocabulary=vocabulary,
            crawl=crawl,
            dataset=dataset,
            run=run,
            model=model,
            shown=shown,
            before=before,
            after=after,
            swap_seconds=swap_seconds,
            asker=self._asker,
            seconds=self._steps.seconds,
        )

    @contextmanager
    def _step(self, name: str, about: str) -> Iterator[None]:
        """Around a step: what fails because a program died is told as that."""
        with self._steps.step(name, about):
            try:
                yield
            except EmojinetError as failure:
                broken = failure.code is grpc.StatusCode.UNAVAILABLE
                self._programs.check(DEATH_SECONDS if broken else 0.0)
                raise

    # -- the steps --------------------------------------------------------------------------------

    def _start(self) -> None:
        scale, enter = self._scale, self._stack.enter_context
        services = [
            self._programs.start("crawler", "--allow-addresses=127.0.0.0/8"),
            self._programs.start("trainer"),
            self._programs.start("inference"),
        ]
        with self._steps.waiting("Starting; without a model inference first builds the starter …"):
            standin = Child(
                *(f"--seed={scale.seed}", f"--posts={scale.posts}", f"--emoji={scale.emoji}"),
                *(f"--skew={scale.skew}", f"--authors={scale.authors}"),
                *(f"--duplicates={scale.duplicates}", f"--edge-px={scale.edge_px}"),
            )
            with unheard():  # it is ended by leaving its context
                self._standin = enter(standin)
            self._programs.watch("the stand-in network", self._standin.process)
            self._programs.wait_until_ready()
        crawler, trainer, inference = (program.address for program in services)
        self._crawler = enter(CrawlerClient(crawler))
        self._trainer = enter(TrainerClient(trainer))
        self._inference = enter(Client(inference))
        pictures = [path.read_bytes() for path in photographs.installed()]
        self._asker = enter(Asker(inference, pictures))
        self._stack.callback(self._steps.say, "\nending what was started …")
        self._steps.say(f"stand-in network  {self._standin.base_url}, {scale.posts:,} posts")
        for program in services:
            self._steps.say(f"{program.name:16}  {program.address}, log in {program.log}")

    def _rank(self) -> tuple[crawling.Crawl, Vocabulary]:
        request = self._request(crawling.CRAWL_MODE_RANK)
        request.vocabulary_size = self._scale.vocabulary
        started = self._crawler.start_crawl(request)
        ranking = self._followed(self._crawler.watch_crawl(started.name, self._lost))
        ranking = self._crawler.get_crawl(ranking.name)  # with its vocabulary
        counts = {count.emoji: count.count for count in ranking.vocabulary}
        vocabulary = Vocabulary(tuple(counts), tuple(counts.values()))
        (self._folder / "vocabulary.json").write_text(vocabulary.to_json(), encoding="utf-8")
        most = "  ".join(f"{emoji} {count:,}" for emoji, count in list(counts.items())[:MOST_USED])
        self._steps.say(f"the {len(vocabulary)} most used: {most} …")
        return ranking, vocabulary

    def _collect(self, ranking: crawling.Crawl) -> crawling.Crawl:
        request = self._request(crawling.CRAWL_MODE_COLLECT)
        request.vocabulary_crawl = ranking.name
        started = self._crawler.start_crawl(request)
        return self._followed(self._crawler.watch_crawl(started.name, self._lost))

    def _freeze(self, crawl: crawling.Crawl) -> crawling.Dataset:
        made = self._crawler.create_dataset(
            crawling.CreateDatasetRequest(
                crawls=[crawl.name], name=NAME, test_share=self._scale.test_share
            )
        )
        dataset = self._followed(self._crawler.watch_dataset(made.name, self._lost))
        parts = (f"{split} {dataset.samples[split]:,}" for split in shards.SPLITS)
        self._steps.say(f"pictures: {', '.join(parts)}")
        return dataset

    def _train(self, dataset: crawling.Dataset) -> training.Run:
        started = self._trainer.start_run(
            training.StartRunRequest(
                kind=training.RUN_KIND_TRAIN,
                recipe=RECIPE,
                dataset=dataset.name,
                settings={"steps": str(self._scale.steps)},
                model_name=NAME,
            )
        )
        return self._followed(self._trainer.watch_run(started.name, self._lost))

    def _publish(self, run: training.Run) -> tuple[training.Model, float]:
        before = self._asker.models
        with self._steps.waiting("Publishing …"):
            model = self._trainer.publish_model(run.name)
        with self._steps.waiting("Activating, and waiting for the first answer from it …"):
            began = time.monotonic()
            model = self._trainer.activate_model(model.name, model.version)
            new = f"{model.name}@{model.version}"
            while new not in self._asker.models:
                self._programs.check()
                if time.monotonic() > began + SWAP_SECONDS:
                    raise Ended(f"no answer comes from {new} in {SWAP_SECONDS:.0f} s")
                time.sleep(0.05)
        swap_seconds = time.monotonic() - began
        self._steps.say(f"{' '.join(before[-1:])} → {new} in {swap_seconds:.1f} s")
        time.sleep(SETTLE_SECONDS)
        return model, swap_seconds

    def _ask(self, shown: Sequence[Sample]) -> list[list[str]]:
        response = self._inference.suggest(
            [sample.jpeg for sample in shown], timeout=ASK_SECONDS, max_suggestions=SUGGESTIONS
        )
        return [[s.emoji for s in r.suggestions.suggestions] for r in response.results]

    # -- what they share --------------------------------------------------------------------------

    def _request(self, mode: crawling.CrawlMode) -> crawling.StartCrawlRequest:
        token = self._folder / "token"
        token.write_text("of the stand-in, which takes any")
        return crawling.StartCrawlRequest(
            mode=mode,
            instagram=crawling.InstagramSource(
                base_url=f"{self._standin.base_url}/v1", token_file=str(token.absolute())
            ),
        )

    def _followed(self, changes: Iterator[Work]) -> Work:
        """Work as it ended; raises what it failed by, or waits for."""
        last: list[Work] = []

        def watched() -> Iterator[Work]:
            for now in changes:
                self._programs.check()
                if now.state == states.STATE_PAUSED:  # nobody is here to mend what it waits for
                    raise errors.from_proto(now.error)
                last[:] = [now]
                yield now

        progress.follow(watched(), "make loop", as_json=False)
        return last[0]

    def _lost(self, line: str) -> None:
        """Of a connection that does not come back while its program lives."""
        self._programs.check(DEATH_SECONDS)
        self._steps.say(line)
