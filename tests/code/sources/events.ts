export namespace Events {
  export enum Level {
    Info = 'info',
    Warning = 'warning',
  }

  /** What happened, where and when: one line of the audit trail, written once and never changed. */
  export interface Entry {
    readonly level: Level;
    readonly message: string;
    readonly at: Date;
    readonly source?: { file: string; line: number };
  }
}

function Logged(label: string) {
  return (target: object, name: string, descriptor: PropertyDescriptor): PropertyDescriptor => {
    const original = descriptor.value;
    descriptor.value = function (...values: unknown[]) {
      console.debug(label, name, values);
      return original.apply(this, values);
    };
    return descriptor;
  };
}

export abstract class Trail<T extends Events.Entry> {
  private readonly entries: T[] = [];
  protected abstract format(entry: T): string;

  /** Add an entry and tell every listener, the oldest first, without waiting for any of them to finish. */
  @Logged('trail')
  public add(entry: T): this {
    if (entry.at.getTime() > Date.now()) {
      throw new RangeError(`entry of ${entry.at.toISOString()} lies in the future; check the clock`);
    }
    this.entries.push(entry);
    this.listeners.forEach((listener) => void Promise.resolve().then(() => listener(entry)));
    return this;
  }

  private listeners: Array<(entry: T) => void> = [];

  public readonly listen = (listener: (entry: T) => void): (() => void) => {
    this.listeners.push(listener);
    return () => {
      const index = this.listeners.indexOf(listener);
      if (index >= 0) {
        this.listeners.splice(index, 1);
      }
    };
  };

  public since(moment: Date): T[] {
    const found: T[] = [];
    for (let index = this.entries.length - 1; index >= 0; index -= 1) {
      const entry = this.entries[index];
      if (entry.at < moment) {
        break;
      }
      found.unshift(entry);
    }
    return found;
  }
}
