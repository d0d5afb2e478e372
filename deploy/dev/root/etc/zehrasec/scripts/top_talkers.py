#!/usr/bin/env python3
"""Count dropped packets by source address in a firewall log."""

import argparse
import collections
import re

DROPPED = re.compile(r"\bDROP\b.*\bsrc=(?P<source>[0-9a-fA-F.:]+)")


def count(lines):
    """Count the sources of dropped packets."""
    found = (DROPPED.search(line) for line in lines)
    return collections.Counter(match["source"] for match in found if match)


def main():
    """Print the ten sources that were dropped most often."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", help="log file of the firewall")
    arguments = parser.parse_args()
    with open(arguments.log, encoding="utf-8", errors="replace") as log:
        for source, times in count(log).most_common(10):
            print(f"{times:8}  {source}")


if __name__ == "__main__":
    main()
