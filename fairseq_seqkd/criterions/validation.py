"""The NLL of gold tokens in the last validation, for methods that follow it.

fairseq adds up what a validation logs over all its batches and processes, and leaves out the
batches that a process repeats because it has no more. So the NLL is taken from what is logged,
into an aggregator of fairseq's metrics. fairseq saves these with a checkpoint; it does not
read them when a training goes on at the beginning of an epoch.
"""

from fairseq.logging import metrics

AGGREGATOR, NLL = "fairseq_seqkd.validation", "nll"


def record_nll(logging_outputs):
    """Note the NLL of a batch of the validation; nothing in training.

    Args:
        logging_outputs: with ``n_validation_tokens``, which is 0 in training
    """
    n_tokens = float(sum(log["n_validation_tokens"] for log in logging_outputs))
    if n_tokens > 0:
        nll = float(sum(log["nll_loss"] for log in logging_outputs))
        with metrics.aggregate(AGGREGATOR, new_root=True):
            metrics.log_scalar(NLL, nll / n_tokens, n_tokens)


def take_nll():
    """The mean NLL of a token in nats, if there was a validation since the last call.

    None without one. If there were several, or of several splits, it is the mean over all.
    """
    meter = metrics.get_meter(AGGREGATOR, NLL)
    if meter is None or meter.count == 0:
        return None
    nll = meter.avg
    meter.reset()
    return nll


def restore(checkpoint):
    """Go on with what was noted when a checkpoint was saved."""
    saved = checkpoint.get("extra_state", {}).get("metrics", {}).get(AGGREGATOR)
    if saved is not None:
        metrics.load_state_dict({AGGREGATOR: saved})
