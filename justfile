# One line each; the gates themselves are in test.sh, so that a machine needs no `just` to run them.

# What a change must pass before it is pushed, without what is slow to install.
check:
    ./test.sh fmt text clippy test doc

# Puts right what can be put right by a machine.
fix:
    cargo fmt
    cargo clippy --all-targets --fix --allow-dirty --allow-staged
    typos --write-changes

# Integration tests whose name holds NAME, with their logs.
it NAME='':
    cargo test --locked --test it -- --nocapture {{NAME}}

# The simulator, on its fixed seeds or on one.
sim SEED='':
    FANFARE_SIM_SEED={{SEED}} cargo test --locked --test sim -- --nocapture

# Fan-out and codec, compared to the last saved run.
bench:
    cargo bench --locked

# A broker with the example configuration.
serve:
    cargo run --release --locked -- serve --config deploy/fanfare.toml

# A broker with live feeds and its page on port 7600.
demo:
    cargo run --release --locked -- demo

# Licences, bans, sources and advisories, by the real tool (needs cargo-deny and cargo-machete).
deny:
    cargo deny --locked check
    cargo machete
