"""Label Studio's formats and its API: configs, results, tasks, client. Free of torch."""
