"""`emojinet slack`: serves the Slack bot."""

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clients import options
from clients.client import DEFAULT_SERVER
from clients.credentials import Credentials
from services.shared.errors import EmojinetError, FileUnreadable, Unauthenticated
from services.shared.fresh import content

if TYPE_CHECKING:
    from clients.slack.app import Secrets
    from clients.slack.bot import How, Manners

STOP_SECONDS = 5
MAX_SECRET_BYTES = 4096
# What each secret looks like, so that one is not taken for another.
TOKEN = re.compile(r"xox[be]\S{10,}"), "a bot's token, which begins with xoxb-"
SIGNING_SECRET = re.compile(r"[0-9a-f]{16,}"), "a signing secret, which is hexadecimal"
APP_TOKEN = re.compile(r"xapp-\S{10,}"), "an app-level token, which begins with xapp-"


def _of_file(name: str, text: str) -> typer.models.OptionInfo:
    made: typer.models.OptionInfo = typer.Option(
        envvar=f"EMOJINET_SLACK_{name}_FILE", help=f"The file with {text}."
    )
    return made


TokenFile = Annotated[Path, _of_file("TOKEN", "the bot's token, xoxb-…")]
SigningSecretFile = Annotated[
    Path | None, _of_file("SIGNING_SECRET", "the app's signing secret: Slack comes here, by HTTP")
]
AppTokenFile = Annotated[
    Path | None, _of_file("APP_TOKEN", "an app-level token, xapp-…: we go to Slack, by Socket Mode")
]
Posts = Annotated[
    str, typer.Option(metavar="reaction|answer|not", help="How to answer pictures in channels.")
]
Mentions = Annotated[
    str, typer.Option(metavar="answer|reaction", help="How to answer who mentions the bot.")
]


def slack(
    token_file: TokenFile,
    signing_secret_file: SigningSecretFile = None,
    app_token_file: AppTokenFile = None,
    posts: Posts = "reaction",
    mentions: Mentions = "answer",
    top: Annotated[int, typer.Option(min=1, max=20, help="Suggestions in an answer.")] = 5,
    min_probability: Annotated[
        float,
        typer.Option(min=0, max=1, callback=options.finite, help="Leave out what is less likely."),
    ] = 0.05,
    host: options.Host = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0 lets the system choose.")
    ] = 8082,
    server: options.Server = DEFAULT_SERVER,
    slack_url: Annotated[
        str, typer.Option(help="Slack's API; https://slack-gov.com/api/ is another.")
    ] = "https://slack.com/api/",
    allow_addresses: options.AllowAddresses = "",
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    insecure: options.Insecure = False,
) -> None:
    """Serve the Slack bot, which answers pictures with emoji: docs/slack.md says how to set it up.

    `emojinet slack --token-file bot.token --app-token-file app.token`
    """
    with options.needs("slack"):
        from clients import listening
        from clients.slack import app
        from services.shared import addresses
        from services.shared.access import Access
    access = Access(tls_cert=tls_cert, tls_key=tls_key, insecure=insecure)
    try:
        allowed = addresses.networks(allow_addresses)
        access.check(host)
        addresses.check_url(slack_url)
    except (ValueError, EmojinetError) as error:
        raise typer.BadParameter(str(error)) from None
    secrets = _secrets(token_file, signing_secret_file, app_token_file)
    Credentials.of_environment().channel(server, ()).close()  # what is wrong with them is told now
    asyncio.run(_introduced(secrets, slack_url))
    listening.serve(
        app.build(
            secrets,
            server,
            _manners(posts, mentions, top, min_probability),
            allowed,
            slack_url,
        ),
        host,
        port,
        access,
        told=f"The bot is at {{}}{app.PATH}",
        stop_seconds=STOP_SECONDS,
    )


def _manners(posts: str, mentions: str, top: int, min_probability: float) -> "Manners":
    from clients.slack.bot import Manners

    return Manners(
        posts=_how(posts, "posts"),
        mentions=_how(mentions, "mentions"),
        top=top,
        min_probability=min_probability,
    )


def _how(text: str, flag: str) -> "How":
    from clients.slack.bot import How

    allowed = [how.value for how in How if flag == "posts" or how is not How.NOT]
    if text not in allowed:
        raise typer.BadParameter(f"--{flag} is one of {', '.join(allowed)}, not {text!r}")
    return How(text)


def secret(path: Path, form: re.Pattern[str], what: str) -> str:
    """The one secret that a file holds. Raises FileUnreadable, which does not say what is there."""
    found = content(path, MAX_SECRET_BYTES).decode(errors="replace").strip()
    if not form.fullmatch(found):
        raise FileUnreadable(f"{path} does not hold {what}, and nothing else.")
    return found


def _secrets(token: Path, signing_secret: Path | None, app_token: Path | None) -> "Secrets":
    from clients.slack.app import Secrets

    if signing_secret is None and app_token is None:
        raise typer.BadParameter(
            "give --signing-secret-file where Slack can reach this program by HTTPS, or "
            "--app-token-file for Socket Mode where it cannot"
        )
    return Secrets(
        token=secret(token, *TOKEN),
        signing_secret=secret(signing_secret, *SIGNING_SECRET) if signing_secret else None,
        app_token=secret(app_token, *APP_TOKEN) if app_token else None,
    )


async def _introduced(secrets: "Secrets", slack_url: str) -> None:
    """Says who we are in which workspace, and what we may not do there.

    Raises:
        Unauthenticated: Slack does not know the token.
    """
    from aiohttp import ClientError
    from slack_sdk.errors import SlackApiError

    from clients.slack import app

    try:
        known = await app.web_client(secrets.token, slack_url).auth_test()
    except SlackApiError as error:
        raise Unauthenticated(
            f"Slack refuses the bot's token: {error.response.get('error')}. It is under OAuth & "
            "Permissions at api.slack.com/apps, and new whenever the app is installed again."
        ) from None
    except (ClientError, OSError, TimeoutError) as error:
        options.say(f"Slack does not answer at {slack_url} ({type(error).__name__}); going on.")
        return
    options.say(f"I am {known.get('user')} in the workspace {known.get('team')}.")
    granted = {key.lower(): value for key, value in known.headers.items()}.get("x-oauth-scopes", "")
    if lacking := set(app.SCOPES) - set(granted.replace(" ", "").split(",")):
        options.say(f"The app lacks the scopes {', '.join(sorted(lacking))}: see docs/slack.md.")
