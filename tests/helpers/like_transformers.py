"""A stand-in for the parts of `transformers` that the documentation shows, where that is not installed.

Its Trainer seeds itself, builds its optimizer in `train`, takes the labels out of the batch and hands them to
`compute_loss_func` with the number of them in all accumulated batches, as `transformers.Trainer` does.
"""

from types import ModuleType, SimpleNamespace

import torch
from torch import nn


def stand_in():
    """Return the module to import in its place."""
    module = ModuleType("transformers")
    for part in (BertConfig, BertForSequenceClassification, Trainer, TrainingArguments):
        setattr(module, part.__name__, part)
    return module


class BertConfig:
    def __init__(self, *, vocab_size, hidden_size, num_labels, **sizes):
        assert sizes.keys() == {"num_hidden_layers", "num_attention_heads", "intermediate_size"}
        self.vocab_size, self.hidden_size, self.num_labels = vocab_size, hidden_size, num_labels


class BertForSequenceClassification(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size * 64, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.places = config.vocab_size * torch.arange(64)

    def forward(self, input_ids):
        return {"logits": self.classifier(self.embedding(input_ids + self.places).mean(1))}


class TrainingArguments:
    def __init__(self, output_dir, *, num_train_epochs, learning_rate, seed, save_strategy, report_to):
        assert (save_strategy, report_to) == ("no", "none")
        assert 0 <= seed < 2**32
        self.epochs, self.rate, self.seed = num_train_epochs, learning_rate, seed


class Trainer:
    def __init__(self, model, args, *, train_dataset, eval_dataset, compute_loss_func, compute_metrics):
        torch.manual_seed(args.seed)
        self.model, self.args, self.train_dataset, self.eval_dataset = model, args, train_dataset, eval_dataset
        self.compute_loss_func, self.compute_metrics = compute_loss_func, compute_metrics

    def train(self):
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.args.rate)
        for _ in range(self.args.epochs):
            for chosen in torch.randperm(len(self.train_dataset)).split(8):
                inputs, labels = batch([self.train_dataset[i] for i in chosen])
                outputs = self.model(**inputs)
                loss = self.compute_loss_func(outputs, labels, num_items_in_batch=torch.tensor(len(labels)))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def evaluate(self):
        inputs, labels = batch(self.eval_dataset)
        with torch.no_grad():
            outputs = self.model(**inputs)
            loss = self.compute_loss_func(outputs, labels, num_items_in_batch=None)
        given = SimpleNamespace(predictions=outputs["logits"].numpy(), label_ids=labels.numpy())
        metrics = {f"eval_{name}": float(value) for name, value in self.compute_metrics(given).items()}
        return {"eval_loss": loss.item(), **metrics}


def batch(samples):
    """Return inputs and labels."""
    inputs = {"input_ids": torch.stack([sample["input_ids"] for sample in samples])}
    return inputs, torch.stack([sample["labels"] for sample in samples])
