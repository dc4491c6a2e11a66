"""What is checked about a run folder, one question each; `prism_secure.audit.run_audit` asks them in order.

chain            chain, writer: the ledger is whole, and the run's own key wrote it
settings         settings, cohort: it says what config.toml says, of clients that were there
client_epsilon   client epsilon, metrics: each epsilon of one client, computed again
record_epsilon   record epsilon: the one noisy release of feature moments
measured_epsilon record epsilon, and settings, of measured rounds
rounds           rounds, ending: everything that was released was charged
model            model: the mask is that of the last round
coins            secrets, replay: nobody else could know the noise
data             data: the images are still those that the run read
file_modes       what others must not read, they cannot
"""
