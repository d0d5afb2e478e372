#!/usr/bin/env python3
"""Turn a list of addresses into the set that the rule "blocked-countries" uses."""

import ipaddress
import sys


def networks(lines):
    """Yield the networks of all lines that are neither empty nor comments."""
    for number, line in enumerate(lines, start=1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        try:
            yield ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise SystemExit(f"line {number}: {error}") from error


def main():
    """Read addresses from standard input, write the smallest equal set."""
    version_4, version_6 = [], []
    for network in networks(sys.stdin):
        (version_4 if network.version == 4 else version_6).append(network)
    for family in (version_4, version_6):
        for network in ipaddress.collapse_addresses(family):
            print(network)


if __name__ == "__main__":
    main()
