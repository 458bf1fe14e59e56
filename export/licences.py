"""Licences of installed packages, for the manifest: an SPDX expression where the package gives one."""

from __future__ import annotations

from importlib.metadata import metadata

UNKNOWN = "unknown"
LONGEST_NAME = 60
"""A longer `License` field is the licence's whole text."""


def licence(package: str) -> str:
    """The licence of an installed package as its metadata has it: expression, else classifier, else a short name."""
    fields = metadata(package)
    if "License-Expression" in fields:
        return str(fields["License-Expression"])
    classifiers = [str(value) for value in fields.get_all("Classifier") or [] if str(value).startswith("License ::")]
    if names := [value.rsplit(" :: ", 1)[-1] for value in classifiers]:
        return " and ".join(sorted(names))
    name = str(fields["License"]).strip() if "License" in fields else ""
    return name if name and len(name) <= LONGEST_NAME and "\n" not in name else UNKNOWN
