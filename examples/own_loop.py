"""ASGT in a training loop of your own: any model, any optimizer, three lines.

Run it with ``python examples/own_loop.py``; it takes a few seconds on a CPU.
"""

import torch
from torch import nn

import asgt

EPS, EPOCHS, SEED = 0.1, 8, 0

torch.manual_seed(SEED)
digits = asgt.load_data("digits")
x, y = digits.train.pixels.float() / 255, digits.train.labels

model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

# The three lines: what to train against, what to hide, and the loss.
attack = asgt.PGD(eps=EPS, steps=5)
mask = asgt.SaliencyMask(k=0.1)
objective = asgt.ASGT(attack=attack, mask=mask, weight=1.0)

print(f"training: {objective}")
print(f"data: digits, {len(x)} training images {tuple(x.shape[1:])}; {EPOCHS} epochs, seed {SEED}")
for epoch in range(EPOCHS):
    eps = EPS * min(1.0, (epoch + 1) / 4)  # from weak to full attacks: training starts more safely
    for rows in torch.randperm(len(x)).split(64):
        out = objective(model, x[rows], y[rows], eps=eps)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    terms = ", ".join(f"{name} {term.item():.3f}" for name, term in out.terms.items())
    print(f"epoch {epoch + 1}, ε = {eps:.3f}; terms of the loss on the last batch: {terms}")

# The table says by which protocol, at which ε, on how many images; each accuracy has its 95 % interval.
evaluation = asgt.evaluate(model, digits.test, "pgd", epsilons=[EPS / 2, EPS], seed=SEED)
print(f"\n{evaluation}")
print(f"clean: {evaluation.accuracy.value:.1%}")
