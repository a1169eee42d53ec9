"""Drawn emoji and stickers: what three vendors draw, judged on a vendor that was never seen.

    make drawings
    python -m services.trainer.glyphs data/glyphs --without twemoji
    python -m services.trainer run glyphs --dataset data/glyphs --output data/runs/glyphs

`make bench-glyphs` leaves each of four vendors out in turn: 83.6 % of 500 emoji are put first on
average (Noto 89.4, Twemoji 86.2, Fluent 83.8, EmojiOne 75.0), the calibration error falls from 0.25
to 0.03. At 92 images a second on two cores learning takes five minutes.
"""

from services.trainer.recipe import Augment, Mode, Recipe

RECIPE = Recipe(
    name="glyphs",
    size_px=128,
    mode=Mode.PARTIAL,
    frozen=0.35,
    steps=800,
    batch=32,
    learning_rate=2e-3,
    layer_decay=0.9,
    weight_decay=0.02,
    warmup=0.1,
    ema=0.99,
    augment=Augment.NONE,
    checkpoint_steps=250,
    warm_start=False,
    prototypes=6,
    remark=(
        "It learned from drawings of emoji, and says nothing of photographs. The starter beside it "
        "has learned from the drawings of all vendors, also from those that this is judged on."
    ),
)
