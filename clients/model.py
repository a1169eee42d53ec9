"""`emojinet model`: models, as far as that needs no service."""

import typer

from clients import options

model = typer.Typer(no_args_is_help=True, help="Models, as far as that needs no service.")


@model.callback()
def _commands() -> None:
    pass  # keeps `build-starter` a command of its own while it is the only one


@model.command()
def build_starter(registry: options.Registry = None) -> None:
    """Build and publish the starter model, and make it live unless another model is.

    It needs no crawl: it knows what things are, not what people mean.
    """
    root = options.registry_or_default(registry)
    with options.needs("trainer"):
        from services.shared import starter

        built = starter.install(root, lambda step: options.say(f"starter: {step} …"))
    print(f"{built.name}@{built.version} is in {root}")
