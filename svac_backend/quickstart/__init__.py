"""From nothing to a running Label Studio with a pre-labelled demo project: what `scripts/quickstart.sh` runs."""
