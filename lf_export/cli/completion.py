"""`lf-export completion`: what a shell sources to complete the command line."""

import click


@click.command(short_help="Completion for bash, zsh or fish.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes commands, options and paths.

    \b
    bash, in ~/.bashrc:  eval "$(lf-export completion bash)"
    zsh, in ~/.zshrc:    eval "$(lf-export completion zsh)"
    fish, once:          lf-export completion fish > ~/.config/fish/completions/lf-export.fish
    """  # noqa: D301 - Click keeps the lines after \b as they are
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - one of the three that Click has
    # Click looks at this variable when it starts: the program's name, and `_COMPLETE`
    script = found(context.find_root().command, {}, "lf-export", "_LF_EXPORT_COMPLETE")
    click.echo(script.source())
