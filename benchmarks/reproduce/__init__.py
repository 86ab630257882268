"""The paper's experiments by one command: `./run reproduce`.

experiments  what is trained and measured, and what the paper found
budgets      how much of it
estimate     how long that takes here
desk         jobs of the service: found again after an interruption, followed to their end
protocol     the order: train every variant, choose on validation, open the test
results      what jobs answered, kept as JSON
figures      the paper's figures 4 to 8, in its layout
pictures     its figure 9
tables       the numbers beside them
page         docs/paper/README.md
main         the command line
"""
