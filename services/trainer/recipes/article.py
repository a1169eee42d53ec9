"""The article's own: the 500 most used emoji, batches of 256, 250,000 iterations.

    emojinet train start article --dataset NAME

For a GPU. The article took a net trained on ImageNet and "fine-tuned" it with smaller rates in
earlier layers; at its 1.68 s for 256 images the 64 million images took five days. On two CPU cores
at some 25 images a second this would take a month: it has not been run to its end here.
"""

from services.trainer.recipe import Augment, Mode, Recipe

RECIPE = Recipe(
    name="article",
    mode=Mode.FULL,
    adapt_norms=True,
    steps=250_000,
    batch=256,
    at_once=256,
    learning_rate=1e-3,
    layer_decay=0.8,
    weight_decay=0.05,
    ema=0.9998,
    logit_adjustment=0.5,
    balance=0.25,
    augment=Augment.STRONG,
    checkpoint_steps=1000,
    evaluate_steps=10_000,
)
