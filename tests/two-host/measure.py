# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a series of plays took: the guest's gaps, the verbs in its windows."""
from hosts import say


def percentile(values, percent):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Series:
    def __init__(self, title):
        self.title, self.runs, self.gaps, self.windows = title, [], [], 0

    def add(self, player):
        """The guest's gap in a window: from the first of its disks that had no more answers to the last that had one again."""
        for window in player.windows:
            self.windows += 1
            self.runs += [(r, window) for r in window.runs]
            gaps = [g for d in player.disks for g in (d.guest.gaps if d.guest else []) if g[0] <= window.ended + 1 and g[1] >= window.began]
            if gaps:
                self.gaps.append((max(g[1] for g in gaps) - min(g[0] for g in gaps)) * 1000)

    def report(self, is_measured):
        if not self.windows:
            return
        if self.gaps:
            gaps = sorted(self.gaps)
            say(f"the guest's storage was away for {gaps[len(gaps) // 2]:.1f} ms (median of {len(gaps)}), at most {gaps[-1]:.1f}")
        if not is_measured:
            return
        say(f"{'verb in the window':<34}{'host':<6}{'runs':>5}{'median':>9}{'p99':>9}{'longest':>9}   ms; ms of each window")
        kinds = {}
        for run, _ in self.runs:
            kinds.setdefault((run.verb, run.host), []).append(run.ms)
        for (verb, host), times in kinds.items():
            say(f"{verb:<34}{host:<6}{len(times):>5}{percentile(times, 50):>9.1f}{percentile(times, 99):>9.1f}{max(times):>9.1f}"
                f"   {sum(times) / self.windows:>8.1f}")
