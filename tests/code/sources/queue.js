'use strict';

const { EventEmitter } = require('events');

/**
 * Runs jobs one after another and retries those that fail.
 * @extends EventEmitter
 */
class JobQueue extends EventEmitter {
  #jobs = [];

  constructor(options = {}) {
    super();
    this.retries = options.retries ?? 3;
    this.delay = options.delay ?? 250;
    this.running = false;
    this.finished = 0;
    this.failed = 0;
  }

  /** Add a job to the end of the line. */
  push(job) {
    if (typeof job !== 'function') {
      throw new TypeError(`a job is a function, got ${typeof job}`);
    }
    this.#jobs.push({ job, attempts: 0, added: Date.now() });
    if (!this.running) {
      setImmediate(() => this.drain());
    }
    return this.#jobs.length;
  }

  // Only one drain is ever active.
  async drain() {
    this.running = true;
    while (this.#jobs.length > 0) {
      const entry = this.#jobs.shift();
      try {
        entry.attempts += 1;
        const result = await entry.job();
        this.finished += 1;
        this.emit('done', result, entry);
      } catch (error) {
        if (entry.attempts < this.retries) {
          await new Promise((resolve) => setTimeout(resolve, this.delay * 2 ** entry.attempts));
          this.#jobs.unshift(entry);
        } else {
          this.failed += 1;
          this.emit('failed', error, entry);
        }
      }
    }
    this.running = false;
    this.emit('idle');
  }
}

// Wait until a queue has nothing left to do.
const whenIdle = async (queue) => {
  if (!queue.running) {
    return queue;
  }
  return new Promise((resolve, reject) => {
    queue.once('idle', () => resolve(queue));
    queue.once('failed', (error) => reject(error));
  });
};

JobQueue.prototype.report = function () {
  const lines = [`finished ${this.finished}`, `failed ${this.failed}`];
  if (this.running) {
    lines.push('still running');
  }
  lines.push(`up to ${this.retries} attempts, first pause ${this.delay} ms`);
  return lines.join('\n');
};

exports.schedule = function (queue, job, milliseconds) {
  const timer = setTimeout(() => queue.push(job), milliseconds);
  timer.unref();
  return {
    cancel: () => clearTimeout(timer),
    due: Date.now() + milliseconds,
    queue,
  };
};

module.exports = { JobQueue, whenIdle };
