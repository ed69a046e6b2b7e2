"""A program that is swept: it takes options, trains, and prints its metrics as a line of JSON.

It need not be Python, and it does not import the sweep. Put your own script here.
"""

import argparse
import json
import random

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--optimizer", choices=["adam", "sgd"], default="adam")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

random.seed(options.seed)
best_lr = 3e-3 if options.optimizer == "adam" else 1e-1
rate = 1 / (1 + 10 * abs(options.lr - best_lr) / best_lr)
accuracy = 0.0
for epoch in range(1, options.epochs + 1):
    accuracy += (0.95 - accuracy) * 0.3 * rate * random.uniform(0.8, 1.2)
    # A line for each epoch is the learning curve; the last line has the result.
    print(json.dumps({"step": epoch, "total": options.epochs, "accuracy": accuracy}), flush=True)
