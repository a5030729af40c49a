"""lime-mlx chat: questions and answers on a terminal."""

from __future__ import annotations

import click

from lime_mlx.cli.common import Request, check_options, load_model, note, noting, prepare_backend, takes_media
from lime_mlx.cli.lines import interactive, lines


@click.command()
@takes_media
@click.option("--temperature", "--temp", type=float, default=0.0, show_default=True, help="0 is greedy.")
@click.option(
    "--top-p",
    type=float,
    default=1.0,
    show_default=True,
    help="Keep the most likely tokens whose probabilities sum to this.",
)
@click.option("--seed", type=int, help="Seed of the sampling.")
@click.option("--quiet/--verbose", default=False, help="Print the answers and warnings, without notes.")
def command(request: Request, temperature: float, top_p: float, seed: int | None, quiet: bool) -> None:
    """Ask several questions about pictures or sounds. Words take the colour of their share of the picture.

    A line is a question, or a command such as /image or /why; /help lists them. A picture or a sound that is dropped
    on the terminal belongs to the next question. Ctrl-C stops an answer, Ctrl-D ends the chat.

    \b
    lime-mlx chat photo.jpg
    lime-mlx chat photo.jpg --model mlx-community/Qwen2.5-VL-3B-Instruct-4bit
    printf 'What is there?\\n/why dog\\n' | lime-mlx chat photo.jpg
    """
    check_options(temperature=temperature, top_p=top_p, seed=seed)
    notes: list[str] = []
    prepare_backend(notes, quiet)

    from lime_mlx.chat import Chat
    from lime_mlx.cli.talk import COMMANDS, Talk
    from lime_mlx.methods import parse_method

    with noting(notes):
        method = None if request.method is None else parse_method(request.method) and request.method
    talk = Talk(quiet, "always" if request.allow_private_urls else "typed")
    for file in request.image:
        talk.show("image", file)
    for file in request.audio:
        talk.show("audio", file)
    model, processor = load_model(request, notes)
    chat = Chat(
        model,
        processor,
        method,
        system=request.system,
        max_tokens=request.max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        kv=request.kv,
        notice=talk.notice,
    )
    if not quiet:
        note(*notes)
    talk.begin(chat)
    for line in lines(list(COMMANDS)):
        if not talk.take(line):
            break
    if talk.failed and not interactive():
        click.get_current_context().exit(1)
