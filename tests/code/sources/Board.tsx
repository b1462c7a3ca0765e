import React, { memo, useMemo } from 'react';
import type { Task } from './types';

export interface BoardProps {
  /** Tasks in the order they were created. */
  tasks: readonly Task[];
  columns: string[];
  onMove?: (task: Task, column: string) => void | Promise<void>;
  title?: string;
}

export type Grouped = Record<string, Task[]>;

/** Group tasks by their column, keeping columns that hold none. */
export function groupTasks(tasks: readonly Task[], columns: string[]): Grouped {
  const grouped: Grouped = Object.fromEntries(columns.map((column) => [column, []]));
  for (const task of tasks) {
    (grouped[task.column] ??= []).push(task);
  }
  return grouped;
}

// A card is drawn again only when its task changes.
const Card = memo(({ task, onMove }: { task: Task; onMove?: (task: Task) => void }) => {
  return (
    <li className="card" draggable onDragEnd={() => onMove?.(task)}>
      <h4>{task.title}</h4>
      {task.labels.map((label) => (
        <span key={label}>{label}</span>
      ))}
    </li>
  );
});

export default function Board({ tasks, columns, onMove, title }: BoardProps) {
  const grouped = useMemo(() => groupTasks(tasks, columns), [tasks, columns]);
  return (
    <section aria-label={title ?? 'Board'}>
      {columns.map((column) => (
        <ul key={column} data-column={column}>
          {grouped[column].map((task) => (
            <Card key={task.id} task={task} onMove={(moved) => onMove?.(moved, column)} />
          ))}
        </ul>
      ))}
    </section>
  );
}
