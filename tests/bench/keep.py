"""How many posts a second one core judges: a stream of everything that is posted needs it fast.

    python -m tests.bench.keep

judges captions of about a hundred characters in several languages, of which a tenth have emoji and
three tenths have hashtags. The last line is `RESULT` with posts a second, of the median round.
"""

import json
import random
import statistics
import time
from functools import partial

from rich.console import Console
from rich.table import Table

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler.keep import Caps, Keeper, Verdict
from services.crawler.post import Post, PostImage
from services.shared import vocabulary

POSTS, ROUNDS, SEED = 20_000, 9, 1
EMOJI_SHARE, HASHTAG_SHARE, MENTION_SHARE, URL_SHARE = 0.1, 0.3, 0.15, 0.1

_LINES = """
We drove out to the coast before sunrise, and the fog lifted just as the first boats came back in.
Honestly the best thing about Saturdays is that nobody expects me to answer before noon. Coffee now!
Der neue Fahrplan gilt ab Montag; wer über Köln fährt, sollte früher los, sonst wird's wieder eng.
Hoy cocinamos paella para toda la familia, y mañana seguimos con los niños en la playa. ¡Qué día!
Le marché du dimanche sent le fromage, les fleurs et le café brûlé, exactement comme autrefois.
Сегодня весь день шёл дождь, зато вечером над рекой был такой закат, что все вышли на набережную.
今日は友だちと新しいラーメン屋に行ってきました。スープがとても濃くて、餃子も最高。来週もまた行きたいです。また写真を載せますね。
오늘은 아침부터 날씨가 너무 좋아서 한강까지 걸어갔다가 커피를 마시고 돌아왔어요. 내일도 맑았으면.
O jogo foi péssimo, mas a companhia valeu: voltamos a pé, cantando, com chuva e tudo. Até domingo!
आज सुबह बाज़ार में बहुत भीड़ थी, लेकिन आम इतने मीठे मिले कि सारी थकान उतर गई। कल फिर जाएँगे, सब साथ।
كان اليوم طويلاً جداً لكن المدينة في الليل جميلة، جلسنا قرب النهر وشربنا الشاي وتحدثنا حتى الفجر.
I don't know who needs to hear this, but you can just leave the party. 3 a.m. was 2 hours too late.
"""
LINES = _LINES.strip().splitlines()
TAGS = ("#sunset", "#food", "#travel", "#tbt", "#café", "#ラーメン", "#закат", "#photography")


def captions(count: int) -> list[str]:
    """Captions as a stream of all posts has them."""
    draw = random.Random(SEED)
    every = [emoji.text for emoji in vocabulary.inventory()]
    return [_caption(draw, every) for _ in range(count)]


def _caption(draw: random.Random, every: list[str]) -> str:
    parts = [draw.choice(LINES)]
    if draw.random() < MENTION_SHARE:
        parts.insert(0, f"@user{draw.randrange(10**6)}.example.com")
    if draw.random() < EMOJI_SHARE:
        parts += draw.choices(every, k=draw.randint(1, 3))
    if draw.random() < HASHTAG_SHARE:
        parts += draw.sample(TAGS, draw.randint(1, 4))
    if draw.random() < URL_SHARE:
        parts.append(f"https://example.com/{draw.getrandbits(64):x}")
    return " ".join(parts)


def posts(texts: list[str]) -> list[Post]:
    """A post with a picture for each caption."""
    images = (PostImage("https://cdn.example/1.jpg"),)
    return [
        Post(uri=f"at://{n}", text=text, images=images, author=f"did:plc:{n % 5000}")
        for n, text in enumerate(texts)
    ]


def nobody(uri: str, author: bytes) -> Verdict | None:
    """Nothing was removed."""
    return None


def judge(crawled: list[Post]) -> float:
    """The seconds that judging all of them takes, on one core."""
    rules = pb.KeepRules(images_per_emoji=10**9)
    every = (emoji.text for emoji in vocabulary.inventory())
    keeper = Keeper("bench", every, rules, Caps(rules, {}, lambda author: 0), b"k" * 32)
    judged = partial(keeper.judge, removed=nobody)
    began = time.perf_counter()
    for post in crawled:
        judged(post)
    return time.perf_counter() - began


def main() -> None:
    """Prints a table, and as the last line RESULT with the figure as JSON."""
    texts = captions(POSTS)
    with_emoji = [text for text in texts if vocabulary.find(text)]
    rates = {}
    table = Table("captions", "characters", "posts a second", "slowest", "fastest")
    kinds = {"all": texts, "with emoji": with_emoji, "without": sorted({*texts} - {*with_emoji})}
    for kind, some in kinds.items():
        crawled = posts(some)
        found = [len(some) / judge(crawled) for _ in range(ROUNDS)]
        rates[kind] = statistics.median(found)
        characters = statistics.mean(map(len, some))
        figures = (rates[kind], min(found), max(found))
        table.add_row(kind, f"{characters:.0f}", *(f"{rate:,.0f}" for rate in figures))
    Console().print(table)
    print("RESULT", json.dumps({"posts_per_second": round(rates["all"])}))


if __name__ == "__main__":
    main()
