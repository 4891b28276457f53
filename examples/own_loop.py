"""ASGT in a training loop of your own: any model, any optimizer, three lines.

Run it with ``python examples/own_loop.py``; it takes a few seconds on a CPU.
"""

import torch
from torch import nn

import asgt

torch.manual_seed(0)
digits = asgt.load_data("digits")
x, y = digits.train.pixels.float() / 255, digits.train.labels

model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

# The three lines: what to train against, what to hide, and the loss.
attack = asgt.PGD(eps=0.1, steps=5)
objective = asgt.ASGT(attack=attack, mask=asgt.SaliencyMask(k=0.1), weight=1.0)

for epoch in range(8):
    for rows in torch.randperm(len(x)).split(64):
        out = objective(model, x[rows], y[rows], eps=0.1 * min(1.0, (epoch + 1) / 4))
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: " + ", ".join(f"{name} {term:.3f}" for name, term in out.terms.items()))

evaluation = asgt.evaluate(model, digits.test, "pgd", epsilons=[0.05, 0.1])
print(f"clean: {evaluation.accuracy.value:.1%}")
print(evaluation)
