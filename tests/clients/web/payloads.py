"""A hundred texts that would run something, or load it, if any of them were taken for markup."""

ELSEWHERE = "https://evil.invalid"
CALL = "window.pwned=1"
TAGS = (
    f"<script>{CALL}</script>",
    f"<img src=x onerror={CALL}>",
    f"<img src={ELSEWHERE}/a.png>",
    f"<svg onload={CALL}>",
    f"<svg><script>{CALL}</script></svg>",
    f"<svg><animate onbegin={CALL} attributeName=x dur=1s>",
    f"<iframe srcdoc='<script>parent.{CALL}</script>'>",
    f"<iframe src=javascript:{CALL}>",
    f"<object data=javascript:{CALL}>",
    f"<embed src={ELSEWHERE}/a.swf>",
    f"<video><source onerror={CALL}></video>",
    f"<audio src=x onerror={CALL}>",
    f"<details open ontoggle={CALL}>",
    f"<input autofocus onfocus={CALL}>",
    f"<body onload={CALL}>",
    f"<math><mi xlink:href=javascript:{CALL}>x",
    f"<a href=javascript:{CALL}>x</a>",
    f"<form action=javascript:{CALL}><input type=submit>",
    f"<link rel=stylesheet href={ELSEWHERE}/a.css>",
    f"<style>@import '{ELSEWHERE}/a.css'</style>",
    f"<style>*{{background:url({ELSEWHERE}/a.png)}}</style>",
    f"<base href={ELSEWHERE}/>",
    f"<meta http-equiv=refresh content='0;url={ELSEWHERE}'>",
    f"<template><script>{CALL}</script></template>",
    f"<noscript><p title='</noscript><img src=x onerror={CALL}>'>",
)
# How the inside of an attribute, of a script, of a comment is left, and what filters miss.
BREAKS = (
    '"><{}',
    "'><{}",
    "</h3></article><{}",
    "--><{}",
    "</title><{}",
    "</textarea><{}",
    "]]><{}",
    "\u202e<{}",
    "%3C{}",
    "\\x3c{}",
)
PLAIN = (
    f"javascript:{CALL}",
    f"data:text/html,<script>{CALL}</script>",
    f"';{CALL};'",
    f'";{CALL};"',
    f"${{{CALL}}}",
    f"{{{{constructor.constructor('{CALL}')()}}}}",
    f"\u2028{CALL}\u2028",
    f"x' onerror='{CALL}",
    f'x" onmouseover="{CALL}" style="position:fixed;inset:0',
    "__proto__",
)


def payloads() -> list[str]:
    """All hundred of them."""
    broken = [
        pattern.format(tag.removeprefix("<"))
        for number, tag in enumerate(TAGS)
        for pattern in (BREAKS[number % 10], BREAKS[(number + 3) % 10], BREAKS[(number + 7) % 10])
    ]
    return ([*TAGS, *PLAIN, *broken])[:100]
