"""How scores and theta move. It uses features and the model; it sends nothing and releases nothing.

moment_matching  moments of features: all that training reads of images, and the loss on them
training         a client's local steps on the scores of its mask
aggregation      the server's rules: how theta moves towards a vote on masks
clip_filling     a client's direction at the length that everybody's clip allows
score_layers     the last layers' scores as numbers, in place of bits
discriminant     labels for images by second moments that were released
measured         measured rounds, the server's side: questions, posterior, training
"""
