"""Calibrate a society whose posterior is known: guided runs and CalibNN, and neural posterior estimation in sbi.

The society is a thousand people who meet as one group for thirty days, with three parameters that are log-uniform on a
box; its daily infections are observed, or every transition. All that the events tell of such a society is how many
there were, so that particles of counts have the likelihood, and adaptive importance sampling with many of them is the
reference. Each posterior's draws are told from the reference's by a classifier (C2ST): 0.5 is what can't be told.

The environment of sbi and the classifier is made once, by pip, under --environments, or given by --python.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

AGENTS, DAYS, DRAWS = 1000, 30, 1000
NAMES = ("initial_infected", "beta", "gamma")
LOW, HIGH = (torch.tensor(x, dtype=torch.float64) for x in ((-2.5, -1.0, -1.6), (-1.0, 0.0, -0.4)))
LEAST = 100
PEER = ("sbi==0.27.0", "scikit-learn")
OBSERVED = {"counts": ("infection",), "transitions": ("infection", "recovery")}
FREEDOM = 5.0


def society():
    """The package's SIR among one group, with log-uniform priors."""
    import pyro.distributions as dist
    from torch.distributions import biject_to, constraints, transforms

    from lpmppl.models.model import Parameter
    from lpmppl.models.population import Population
    from lpmppl.models.sir import SIR

    class Decades(constraints.interval):
        """An interval that is unbounded by way of its logarithms."""

    @biject_to.register(Decades)
    def unbounded(support):
        low, high = math.log(support.lower_bound), math.log(support.upper_bound)
        affine = transforms.AffineTransform(low, high - low)
        return transforms.ComposeTransform([transforms.SigmoidTransform(), affine, transforms.ExpTransform()])

    class LogUniform(dist.TorchDistribution):
        arg_constraints = {}

        def __init__(self, low, high):
            self.low, self.high = low, high
            super().__init__(validate_args=False)

        @property
        def support(self):
            return Decades(self.low, self.high)

        def sample(self, shape=()):
            return self.low * (self.high / self.low) ** torch.rand(shape, dtype=torch.float64)

        def log_prob(self, x):
            return -torch.log(x * math.log(self.high / self.low))

    people = Population.of({"household": np.arange(AGENTS)})
    model = SIR(people, [people.everyone()])
    model.parameters = {
        name: Parameter(LogUniform(10.0**low, 10.0**high), 10 ** ((low + high) / 2), name, "", "box")
        for name, low, high in zip(NAMES, LOW.tolist(), HIGH.tolist(), strict=True)
    }
    return model


def binomial(n, p):
    """How many of n independent events happen."""
    return torch.binomial(n, p.expand_as(n).contiguous())


def log_binomial(n, k, p):
    """The log-probability of k of n, minus infinity where it can't be."""
    can = (k >= 0) & (k <= n)
    n, k = torch.where(can, n, 0.0), torch.where(can, k, 0.0)
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    p = p.clamp(1e-300, 1 - 1e-15)
    return torch.where(can, ways + torch.xlogy(k, p) + (n - k) * torch.log1p(-p), -math.inf)


def left(k, hazard):
    """What k events of one hazard leave of their steps, together: exactly for a few, by the central limit for more."""
    h, few = hazard.clamp(min=1e-3), 8
    mean, variance = -1 / torch.expm1(-h) - 1 / h, 1 / h**2 - torch.exp(-h) / torch.expm1(-h) ** 2
    many = mean * k + torch.randn_like(k) * (variance * k).clamp(min=0).sqrt()
    each = 1 + torch.log1p(torch.rand(*k.shape, few, dtype=k.dtype) * torch.expm1(-h)[..., None]) / h[..., None]
    return torch.where(k >= few, many, (each * (torch.arange(few) < k[..., None])).sum(-1))


def simulated(theta):
    """Daily infections and recoveries of log10 parameters (n, 3), by counts alone: shape (n, T, 2)."""
    share, beta, gamma = (10**theta).unbind(-1)
    sick = binomial(torch.full_like(share, AGENTS), share)
    well, sends, days = AGENTS - sick, sick, []
    for _ in range(DAYS):
        hazard = beta * sends / AGENTS
        new, over = binomial(well, -torch.expm1(-hazard)), binomial(sick, -torch.expm1(-gamma))
        sends, well, sick = sick - over + left(new, hazard), well - new, sick + new - over
        days.append(torch.stack([new, over], -1))
    return torch.stack(days, -2)


def log_likelihood(theta, first, seen, observed, particles):
    """The probability of what was seen, with that of how many were infected first, by a particle filter of counts."""
    share, beta, gamma = (x[:, None].expand(-1, particles) for x in (10**theta).unbind(-1))
    sick = first[:, None].expand(-1, particles)
    total = log_binomial(torch.full_like(first, AGENTS), first, share[:, 0])
    well, sends = AGENTS - sick, sick
    for day in seen:
        hazard, new = beta * sends / AGENTS, day[0].expand_as(sick)
        log_weight = log_binomial(well, new, -torch.expm1(-hazard))
        if observed == "transitions":
            over = day[1].expand_as(sick)
            log_weight = log_weight + log_binomial(sick, over, -torch.expm1(-gamma))
        else:
            over = binomial(sick, -torch.expm1(-gamma))
        total = total + log_weight.logsumexp(-1) - math.log(particles)
        sends, well, sick = sick - over + left(new, hazard), well - new, sick + new - over
        weight = torch.softmax(torch.where(torch.isfinite(log_weight), log_weight, -1e9), -1)
        ends = weight.cumsum(-1) / weight.sum(-1, keepdim=True)
        places = (torch.arange(particles) + torch.rand(len(theta), 1, dtype=theta.dtype)) / particles
        chosen = torch.searchsorted(ends, places).clamp(max=particles - 1)
        sends, well, sick = (x.gather(-1, chosen).clamp(min=0) for x in (sends, well, sick))
    return torch.where(torch.isnan(total), -math.inf, total)


def reference(seen, truth, observed, seed, size=1500, particles=(20, 40, 80, 150)):
    """Draws of the posterior, by rounds of importance sampling over log10 parameters and the log of how many began."""
    torch.manual_seed(seed)
    mean = torch.cat([truth, torch.log(AGENTS * 10 ** truth[:1])])
    root = torch.diag(torch.tensor([0.2, 0.15, 0.2, 0.3], dtype=torch.float64))
    for round_, many in enumerate(particles):
        spread = torch.distributions.Chi2(torch.tensor(FREEDOM, dtype=torch.float64)).sample((size, 1))
        x = mean + torch.randn(size, 4, dtype=torch.float64) @ root.T * (FREEDOM / spread).sqrt()
        square = torch.linalg.solve_triangular(root, (x - mean).T, upper=False).square().sum(0)
        log_weight = torch.full((size,), -math.inf, dtype=torch.float64)
        inside = ((x[:, :3] > LOW) & (x[:, :3] < HIGH)).all(-1) & (x[:, 3] < math.log(AGENTS))
        parts = [log_likelihood(y[:, :3], y[:, 3].exp().floor(), seen, observed, many) for y in x[inside].split(250)]
        log_weight[inside] = torch.cat(parts) + x[inside, 3]
        log_weight = log_weight + (FREEDOM + 4) / 2 * torch.log1p(square / FREEDOM)
        weight, power = torch.softmax(log_weight, 0), 1.0
        while round_ + 1 < len(particles) and 1 / weight.square().sum() < 60 and power > 1e-3:
            power *= 0.7
            weight = torch.softmax(log_weight * power, 0)
        mean = weight @ x
        covariance = ((x - mean) * weight[:, None]).T @ (x - mean)
        root = torch.linalg.cholesky(1.7 * covariance + 1e-6 * torch.eye(4, dtype=torch.float64))
    return x[torch.multinomial(weight, DRAWS, replacement=True), :3], float(1 / weight.square().sum())


def data_sets(model, count, seed):
    """Parameters from the prior with what one run of each had, where more than LEAST were infected."""
    import lpmppl as lpm

    chance, found, run_seed = np.random.default_rng(seed), [], 1000 * (seed - 1)
    while len(found) < count:
        theta = LOW + (HIGH - LOW) * torch.from_numpy(chance.random(3))
        run_seed += 1
        settings = dict(zip(NAMES, (10**theta).tolist(), strict=True))
        run = lpm.run(model, DAYS, run_seed, set=settings)["prior_predictive"]
        series = [run[tally].values.reshape(-1) for tally in ("infections", "recoveries")]
        if series[0].sum() > LEAST:
            found.append((theta, torch.from_numpy(np.stack(series, -1)).double()))
    return found


def guided(model, seen, observed, evaluations, seed):
    """Draws of log10 parameters by `conditioned`, with what it says of itself."""
    from lpmppl.inference.importance import conditioned
    from lpmppl.inference.scales import Scale

    scale, began = Scale(model, NAMES), time.perf_counter()
    series = {site: seen[:, k].tolist() for k, site in enumerate(OBSERVED[observed])}
    found = conditioned(model, scale, {}, series, DAYS, evaluations, seed)
    draws = torch.stack(scale.columns(found.drawn(DRAWS, seed)), -1).log10()
    return draws, {"ess": found.effective, "khat": found.khat, "seconds": time.perf_counter() - began}


def network(model, sets, observed, evaluations, seed):
    """Draws of each data set's posterior on the box's scale, by one network that has learnt from so many runs."""
    from lpmppl.inference.calibnn import CalibNN

    began = time.perf_counter()
    series = ["infections", "recoveries"][: len(OBSERVED[observed])]
    learnt = CalibNN(model, series, DAYS, parameters=NAMES, seed=seed)
    learnt.learn(evaluations)
    form, scale = learnt.tasks[""].ensemble.observed, learnt.tasks[""].scale
    places = [series.index(stream.name) for stream in form.streams]
    counts = torch.stack([seen[:, places].T.reshape(-1).double() for _, seen in sets])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        u = learnt.given(counts).sample((DRAWS,)).swapaxes(0, 1)
    order = [scale.names.index(n) for n in NAMES]
    draws = [torch.stack(scale.columns(x), -1).log10()[:, order] for x in u]
    return draws, {"seconds": (time.perf_counter() - began) / len(sets)}


def peer(folder, observed, evaluations):
    """In the environment of sbi: fit NPE, and tell every method's draws from the reference's."""
    from sbi.inference import NPE
    from sbi.utils import BoxUniform
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    def told(a, b):
        mean, sd = b.mean(0), b.std(0)
        x = np.concatenate([(a - mean) / sd, (b - mean) / sd]).clip(-20, 20)
        y = np.r_[np.zeros(len(a)), np.ones(len(b))]
        folds = StratifiedKFold(3, shuffle=True, random_state=0)
        return float(cross_val_score(MLPClassifier((30, 30), max_iter=300, random_state=0), x, y, cv=folds).mean())

    file = np.load(folder / "draws.npz")
    methods = {name: file[name] for name in file.files}
    seen, truth = methods.pop("seen"), methods.pop("truth")
    kept = len(OBSERVED[observed])

    def read(x):
        return (torch.as_tensor(x)[..., :kept].flatten(-2).float() + 0.375).sqrt()

    for budget in evaluations:
        torch.manual_seed(budget)
        theta = LOW + (HIGH - LOW) * torch.rand(budget, 3, dtype=torch.float64)
        inference = NPE(prior=BoxUniform(LOW.float(), HIGH.float()), show_progress_bars=False)
        inference.append_simulations(theta.float(), read(simulated(theta))).train(show_train_summary=False)
        posterior = inference.build_posterior()
        methods[f"sbi NPE, {budget}"] = np.stack(
            [posterior.sample((DRAWS,), x=read(x), show_progress_bars=False).double().numpy() for x in seen]
        )
    base, result = methods["reference"], {}
    for name, draws in methods.items():
        if name != "reference":
            low, high = np.quantile(draws, [0.05, 0.95], axis=1)
            inside = (low <= truth) & (truth <= high)
            result[name] = {
                "c2st": [told(a, b) for a, b in zip(draws, base, strict=True)],
                "covered": float(inside.mean()),
            }
    (folder / "told.json").write_text(json.dumps(result))


def main() -> None:
    """Calibrate by every method, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=10)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[1000])
    parser.add_argument("--observed", choices=OBSERVED, default="counts")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the data sets")
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "lpmppl-bench")
    parser.add_argument("--python", help="a Python that has sbi and scikit-learn")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.peer:
        peer(args.peer, args.observed, args.evaluations)
        return

    from peers import interpreter
    from table import markdown

    python, model = args.python or interpreter(args.environments, PEER), society()
    sets, said = data_sets(model, args.datasets, args.seed), {}
    arrays = {"truth": torch.stack([t for t, _ in sets]), "seen": torch.stack([y for _, y in sets])}
    for name, apart in (("reference", 0), ("reference again", 1000)):
        found = [reference(y, t, args.observed, k + apart) for k, (t, y) in enumerate(sets)]
        arrays[name], said[name] = torch.stack([x for x, _ in found]), [{"ess": e} for _, e in found]
        print(f"{name}: effective {[round(e) for _, e in found]}", file=sys.stderr, flush=True)
    for budget in args.evaluations:
        name = f"lpmppl guided, {budget}"
        found = [guided(model, y, args.observed, budget, k) for k, (_, y) in enumerate(sets)]
        arrays[name], said[name] = torch.stack([x for x, _ in found]), [s for _, s in found]
        print(f"{name}: {said[name]}", file=sys.stderr, flush=True)
        name = f"lpmppl CalibNN, {budget}"
        draws, figures = network(model, sets, args.observed, budget, args.seed)
        arrays[name], said[name] = torch.stack(draws), [figures]
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "draws.npz", **{n: x.numpy() for n, x in arrays.items()})
        me = str(Path(__file__).resolve())
        command = [python, me, "--peer", folder, "--observed", args.observed, "--evaluations"]
        # sbi keeps logs where it runs.
        subprocess.run([*command, *map(str, args.evaluations)], check=True, stderr=subprocess.DEVNULL, cwd=folder)
        told = json.loads((Path(folder) / "told.json").read_text())

    def row(name):
        figures = said.get(name, [])
        mean = {key: np.mean([f[key] for f in figures]) for key in (figures[0] if figures else {})}
        return [
            name,
            f"{np.mean(told[name]['c2st']):.3f}",
            f"{max(told[name]['c2st']):.3f}",
            f"{told[name]['covered']:.2f}",
            *(f"{mean[key]:.{digits}f}" if key in mean else "" for key, digits in (("ess", 0), ("khat", 2))),
            f"{mean['seconds']:.0f}" if "seconds" in mean else "",
        ]

    print(f"{AGENTS:,} people, {DAYS} days, {args.datasets} data sets, {args.observed} observed\n")
    header = ["method, runs", "C2ST, mean", "C2ST, most", "90 % covers", "effective", "k-hat", "seconds a posterior"]
    print(markdown(header, [row(name) for name in told]))


if __name__ == "__main__":
    main()
