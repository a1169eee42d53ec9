"""Mosec and LitServe live in another environment: pytest must not import what needs them."""

collect_ignore = ["mosec.py", "litserve.py"]
