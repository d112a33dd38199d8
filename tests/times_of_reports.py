"""What a bench's report has of times: it differs between two undisturbed benches too."""

TIMES = {
    *("created", "latency", "latency_grid", "latency_ratios", "load_seconds", "slower"),
    *("tpot_seconds", "ttft_seconds"),
}
