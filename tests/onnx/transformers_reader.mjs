// Reads {"folder", "batches"} and writes the vectors of each batch: node transformers_reader.mjs PACKAGE < request
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const built = join(resolve(process.argv[2]), "dist", "transformers.node.mjs");
const { AutoModel, AutoTokenizer, env } = await import(pathToFileURL(built));
env.allowRemoteModels = false;
const { folder, batches } = JSON.parse(readFileSync(0, "utf8"));
const tokenizer = await AutoTokenizer.from_pretrained(folder);
const model = await AutoModel.from_pretrained(folder, { dtype: "fp32" });
const found = [];
for (const texts of batches) {
  const { sentence_embedding } = await model(tokenizer(texts, { padding: true, truncation: true }));
  found.push(sentence_embedding.tolist());
}
console.log(JSON.stringify(found));
