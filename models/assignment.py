"""The cheapest way to give each row a column of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Columns = npt.NDArray[np.int64]


def assignment(costs: npt.NDArray[np.floating[Any]]) -> Columns:
    """Return the column of every row of `costs` (rows, columns), all of them different, whose sum is the least.

    There are at least as many columns as rows, and all costs are finite. Each row takes the shortest augmenting path to
    a free column, by prices of rows and columns that keep every reduced cost from being negative (Jonker and Volgenant
    1987): O(rows^2 columns).
    """
    rows, columns = costs.shape
    cheapest = costs.argmin(axis=1)
    if len(set(cheapest.tolist())) == rows:  # every row gets what it wants
        return np.asarray(cheapest, dtype=np.int64)
    # Place 0 is a column outside of the table, from which the path of a new row starts.
    of_rows, of_columns = np.zeros(rows), np.zeros(columns + 1)
    owner = np.full(columns + 1, -1)
    for row in range(rows):
        owner[0], place = row, 0
        least, before = np.full(columns + 1, np.inf), np.zeros(columns + 1, dtype=np.int64)
        seen = np.zeros(columns + 1, dtype=bool)
        while owner[place] >= 0:
            seen[place] = True
            reduced = costs[owner[place]] - of_rows[owner[place]] - of_columns[1:]
            nearer = ~seen[1:] & (reduced < least[1:])
            least[1:][nearer], before[1:][nearer] = reduced[nearer], place
            place = int(np.where(seen, np.inf, least)[1:].argmin()) + 1
            step = least[place]
            of_rows[owner[seen]] += step
            of_columns[seen] -= step
            least[~seen] -= step
        while place:
            owner[place] = owner[before[place]]
            place = int(before[place])
    found = np.empty(rows, dtype=np.int64)
    taken = np.flatnonzero(owner[1:] >= 0)
    found[owner[1:][taken]] = taken
    return found
