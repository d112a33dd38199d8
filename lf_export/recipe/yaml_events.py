"""What is refused of a YAML text before anything is built of it."""

import yaml

from lf_export.errors import InputError


def check_events(text: str, where: str, deepest: int, too_deep: str) -> None:
    """Refuse aliases (a few lines of them unfold to gigabytes) and nesting of more than `deepest` levels.

    `where` names the text in errors, `too_deep` says what is wrong with one that nests too deep.

    Raises:
        InputError: it has either.
        yaml.YAMLError: it is not YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"{where}: YAML aliases are not used in recipes")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > deepest:
            raise InputError(f"{where}: {too_deep}")
