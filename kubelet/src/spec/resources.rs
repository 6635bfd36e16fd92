//! Shares, quotas, limits, oom_score_adj.
