# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a series of plays took: the guest's gaps, and the verbs in its windows, with each one's share of the gap."""
from hosts import say


def percentile(values, percent):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def covered(runs):
    """The time in which at least one of them ran, in ms: several disks are served at once."""
    total, end = 0.0, 0.0
    for run in sorted(runs, key=lambda r: r.started):
        total += max(0.0, run.ended - max(run.started, end))
        end = max(end, run.ended)
    return total * 1000


class Series:
    def __init__(self, title):
        self.title, self.windows = title, []  # [(gap in ms or None, {(verb, host): [runs]})]

    def add(self, player):
        """A gap in a window: from the first of the guest's disks that had no more answers to the last that had one again."""
        for window in player.windows:
            kinds = {}
            for run in window.runs:
                kinds.setdefault((run.verb, run.host), []).append(run)
            gaps = [g for d in player.disks if d.guest for g in d.guest.gaps if g[0] <= window.ended and g[1] >= window.began]
            self.windows.append(((max(g[1] for g in gaps) - min(g[0] for g in gaps)) * 1000 if gaps else None, kinds))

    def report(self, is_measured):
        gaps = sorted(gap for gap, _ in self.windows if gap is not None)
        if not gaps:
            return
        say(f"the guest's storage was away for {percentile(gaps, 50):.1f} ms (median of {len(gaps)}), at most {gaps[-1]:.1f}")
        if is_measured:
            self.report_verbs(gaps)

    def report_verbs(self, gaps):
        say(f"{'verb in the window':<28}{'host':<6}{'runs':>5}{'median':>9}{'p99':>9}{'longest':>9} ms  a gap has{'':>4}  of it")
        mean, known = sum(gaps) / len(gaps), 0.0
        for verb, host in dict.fromkeys(kind for _, kinds in self.windows for kind in kinds):
            runs = [kinds.get((verb, host), []) for _, kinds in self.windows]
            times = [run.ms for window in runs for run in window]
            share = sum(covered(window) for window in runs) / len(runs)
            known += share
            note = "   the barrier" if verb == "Datapath.deactivate" and host == "S" else ""
            say(f"{verb:<28}{host:<6}{len(times):>5}{percentile(times, 50):>9.1f}{percentile(times, 99):>9.1f}{max(times):>9.1f}"
                f"{share:>13.1f} ms{share / mean * 100:>6.0f} %{note}")
        say(f"{'no verb, or several at once':<72}{mean - known:>6.1f} ms{(mean - known) / mean * 100:>6.0f} %")
