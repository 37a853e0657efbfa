"""The epidemic in Mesa, on the contacts given, every person an agent with a list of whom it meets."""

import math
from enum import IntEnum

import mesa

from contacts import People
from epidemic import DEATH, INFECTIOUS, LATENT, Run, measure, seeds


class Stage(IntEnum):
    """Where a person is in the course of the disease."""

    SUSCEPTIBLE = 0
    EXPOSED = 1
    INFECTIOUS = 2
    RECOVERED = 3
    DEAD = 4


def lognormal(mean: float, spread: float) -> tuple[float, float]:
    """The parameters of a log-normal distribution with a mean and a standard deviation."""
    sigma = math.sqrt(math.log(1 + (spread / mean) ** 2))
    return math.log(mean) - sigma**2 / 2, sigma


class Person(mesa.Agent):
    """Somebody who meets the same people every day."""

    def __init__(self, model: mesa.Model, age: int, susceptibility: float) -> None:
        super().__init__(model)
        self.age, self.susceptibility = age, susceptibility
        self.stage, self.due = Stage.SUSCEPTIBLE, math.inf
        self.contacts: list[tuple[Person, float]] = []

    def infected(self) -> None:
        """Begin the latent period."""
        self.stage = Stage.EXPOSED
        self.due = self.model.steps + self.random.lognormvariate(*lognormal(*LATENT))
        self.model.infections += 1

    def progress(self) -> None:
        """Go on to the next stage once this one is over."""
        if self.due > self.model.steps:
            return
        if self.stage == Stage.EXPOSED:
            self.stage = Stage.INFECTIOUS
            self.due += self.random.lognormvariate(*lognormal(*INFECTIOUS))
        else:
            self.stage = Stage.DEAD if self.random.random() < DEATH else Stage.RECOVERED
            self.due = math.inf

    def transmit(self) -> None:
        """Meet everybody whom it meets."""
        draw, beta = self.random.random, self.model.beta
        for other, weight in self.contacts:
            if other.stage == Stage.SUSCEPTIBLE and draw() < beta * weight * other.susceptibility:
                other.infected()


class Epidemic(mesa.Model):
    """A SEIR epidemic; `beta` is per contact, of which pairs have their weight."""

    def __init__(self, people: People, beta: float, seed: int) -> None:
        super().__init__(seed=seed)
        self.beta, self.infections = beta, 0
        agents = Person.create_agents(self, len(people), people.age.tolist(), people.susceptibility.tolist())
        everybody = list(agents)
        for pairs in people.layers.values():
            for one, other, weight in zip(pairs.one.tolist(), pairs.other.tolist(), pairs.weight.tolist(), strict=True):
                everybody[one].contacts.append((everybody[other], weight))
                everybody[other].contacts.append((everybody[one], weight))
        for person in self.random.sample(everybody, seeds(len(people))):
            person.infected()
        self.datacollector = mesa.DataCollector(model_reporters={"infections": "infections"})

    def step(self) -> None:
        """A day: who is infected goes on, and the infectious meet others in random order."""
        self.agents.select(lambda person: person.due < math.inf).do("progress")
        self.agents.select(lambda person: person.stage == Stage.INFECTIOUS).shuffle_do("transmit")
        self.datacollector.collect(self)


def build(people: People, beta: float, days: int, seed: int) -> Run:
    """Make the agents."""
    model = Epidemic(people, beta, seed)

    def run() -> dict[str, float]:
        for _ in range(days):
            model.step()
        pairs = sum(len(pairs) for pairs in people.layers.values())
        return {"attack_rate": model.infections / len(people), "steps": model.steps, "pairs": pairs / len(people)}

    return run


if __name__ == "__main__":
    measure(f"Mesa {mesa.__version__}", build)
