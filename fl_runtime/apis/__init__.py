"""Controllers, Executors, Filters: the API for those who write algorithms. Names and modules are those of NVIDIA FLARE
2.x, so that code written for it needs other import lines only. What is behind them is fedspan's own."""
